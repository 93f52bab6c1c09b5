"""CIFAR-10 in hours on a processor: 30 epochs dense, then 20 by a method; or 50 from scratch.

python launch.py --config=configs/cifar10_short.py:resnet20,trunk
python launch.py --config=configs/cifar10_short.py:resnet20,exact,0.01 --config.init_from=RUN
python launch.py --config=configs/cifar10_short.py:resnet20,rigl,0.05

The argument is MODEL,METHOD[,POINT]. RUN is a finished trunk of the same model and seed, from which
every method that starts dense goes on; `exact` with 1.0 is the dense control of equal length.

| method | from | POINT |
|---|---|---|
| trunk | scratch, 30 epochs | |
| dense | scratch, 50 epochs of one cycle | |
| exact | a trunk, 20 epochs | active fraction of all parameters, one cut at the start |
| threshold | a trunk, 20 epochs | magnitude: all parameters under it go at the start |
| gradual, random | a trunk, 20 epochs | active fraction of the kernels' weights, ERK |
| l1 | a trunk, 20 epochs | strength, for 10 epochs |
| sparse_vd, bc | a trunk, 20 epochs | weight of the KL |
| rewound | a trunk, 20 epochs a round | active fraction of the kernels' weights |
| rigl, set | scratch, 50 epochs | active fraction of the kernels' weights, ERK |

45,000 images train, 5,000 choose the network by accuracy. An epoch of resnet20 takes 1 to 3 minutes
on two cores, of mobilenet 2 to 4, of vgg16 4 to 8.
"""

from ml_collections import ConfigDict

from configs import recipes
from sparsejax.experiment.config import base

TRUNK_EPOCHS, LATER_EPOCHS = 30.0, 20.0
PEAKS = {'mobilenet': 0.1}  # of the learning rate in the trunk; of others 0.2
REGULARISED = ('vgg16', 'resnet50')  # large enough to be smoothed and cut out


def get_config(what='resnet20,trunk'):
  model, method, point = (*what.split(','), '', '')[:3]
  if method not in METHODS or what.count(',') > 2:
    allowed = f'allowed is MODEL,METHOD[,POINT] with one of the methods {", ".join(METHODS)}'
    raise ValueError(f'cifar10_short.py:{what}: {allowed}')
  build, takes_point = METHODS[method]
  if bool(point) != takes_point:
    how = 'needs a' if takes_point else 'takes no'
    raise ValueError(f'cifar10_short.py:{what}: the method {method} {how} point')
  return build(model, point) if takes_point else build(model)


def cifar10_short(model, epochs, chain=base.SGD):
  """What all methods share; dense from scratch in one cycle of the learning rate."""
  config = base.get_config(chain)
  config.model.name = model
  config.epochs = epochs
  config.data.name = 'cifar10'
  config.data.split = 'first'
  config.data.validation = 5000
  config.data.crop_padding = 4
  config.data.flip = True
  if model in REGULARISED:
    config.data.cutout = 8
    config.loss.label_smoothing = 0.1
  config.evaluation.choose_by = 'accuracy'
  config.log.every_steps = 117  # three lines an epoch of 351 steps
  if 'trace' in base.links(config):
    config.trace.nesterov = True
  config.scale_by_learning_rate = one_cycle(PEAKS.get(model, 0.2), rise_epochs=3.0)
  return config


def one_cycle(peak, *, rise_epochs):
  """The block of a learning rate that rises linearly and falls to 0 along half a cosine."""
  rate = dict(schedule='cosine', value=peak, warmup_epochs=rise_epochs)
  return ConfigDict({'learning_rate': rate})


def trunk(model):
  """What methods that start dense go on from."""
  return cifar10_short(model, TRUNK_EPOCHS)


def dense(model):
  """The dense control of methods that start sparse."""
  return cifar10_short(model, TRUNK_EPOCHS + LATER_EPOCHS)


def _going_on(model, chain):
  """From a trunk, in a second cycle at a lower rate."""
  config = cifar10_short(model, LATER_EPOCHS, chain)
  config.scale_by_learning_rate = one_cycle(0.1, rise_epochs=1.0)
  return config


def _cut(model):
  """From a trunk, with one cut at the start, of all parameters as in the log."""
  config = _going_on(model, (*base.SGD, 'prune'))
  config.prune.begin_epochs = 0.0
  return config


def exact(model, fraction):
  """Deep Compression to an exact fraction of all parameters, by global rank."""
  return recipes.keep(_cut(model), fraction)


def threshold(model, magnitude):
  """Deep Compression at an absolute threshold."""
  config = _cut(model)
  config.method = 'deep compression (threshold)'
  config.prune.target = recipes.number('threshold', magnitude, 'a number in [0, 1)')
  return config


def gradual(model, fraction):
  """The kernels cut by magnitude along the cubic schedule over the first half, ERK densities."""
  config = recipes.keep(_cut(model), fraction)
  config.prune.parameters = 'kernels'
  config.prune.allocation = 'erk'
  return recipes.gradually(config, begin_epochs=0.0, end_epochs=LATER_EPOCHS / 2)


def random(model, fraction):
  """The same, but what is removed is drawn by lot."""
  return recipes.at_random(gradual(model, fraction))


def l1(model, strength):
  """The kernels shrunk by the proximal step over the first half; what is zero then stays so."""
  return recipes.shrunk(_going_on(model, base.SGD), strength, off_epochs=LATER_EPOCHS / 2)


def rewound(model, fraction):
  """Rounds of a fifth by global rank, each with the trunk's second cycle again."""
  config = _cut(model)
  config.prune.parameters = 'kernels'
  recipes.keep(config, fraction)
  config.method = 'learning-rate rewinding'
  return recipes.in_rounds(config, 0.0, LATER_EPOCHS)


def _exchanging(rule):
  def build(model, fraction):
    config = dense(model)
    config.chain = (*base.SGD, 'prune')
    base.complete(config)
    config.prune.parameters = 'kernels'
    return recipes.exchanging(recipes.keep(config, fraction), rule)

  return build


def _variational(model, layers, chain, kl_weight):
  """A posterior around the trunk's weights: Adam at 3e-3, falling to 0 over the last 8 epochs."""
  config = cifar10_short(model, LATER_EPOCHS, chain)
  config.loss.label_smoothing = 0.0  # the loss is a likelihood
  config.layers = layers
  base.complete(config)
  config.evaluation.choose_by = 'loss'  # of the last network, the only one
  falling = dict(schedule='linear', initial=3e-3, final=0.0, begin_epochs=12.0)
  config.scale_by_learning_rate = ConfigDict({'learning_rate': falling})
  config.add_kl_gradients = ConfigDict({'weight': recipes.warm_up(kl_weight, 0.0, 4.0)})
  return config


def sparse_vd(model, kl_weight):
  """Sparse variational dropout; variances start low, or small weights would count as noise."""
  config = _variational(model, 'sparse_vd', recipes.VARIATIONAL, kl_weight)
  config.method = 'sparse variational dropout'
  config.sparse_vd.log_variance = -15.0
  return config


def bc(model, kl_weight):
  """Bayesian compression of whole filters, normal-Jeffreys prior, with the log's bounds."""
  config = _variational(model, 'group_normal_jeffreys', recipes.BOUNDED, kl_weight)
  config.method = 'Bayesian compression (normal-jeffreys)'
  config.clip = ConfigDict({'max_delta': 0.2})
  config.bound_variances.maximum = 0.5
  return config


METHODS = {  # (what builds the config, whether it takes a point)
  'trunk': (trunk, False),
  'dense': (dense, False),
  'exact': (exact, True),
  'threshold': (threshold, True),
  'gradual': (gradual, True),
  'random': (random, True),
  'l1': (l1, True),
  'sparse_vd': (sparse_vd, True),
  'bc': (bc, True),
  'rewound': (rewound, True),
  'rigl': (_exchanging('rigl'), True),
  'set': (_exchanging('set'), True),
}
