"""CIFAR-10 in hours on a CPU: 30 epochs dense, then 20 with a method; or 50 from scratch.

python launch.py --config=configs/cifar10_short.py:resnet20,trunk
python launch.py --config=configs/cifar10_short.py:resnet20,exact,0.01 --config.init_from=RUN
python launch.py --config=configs/cifar10_short.py:resnet20,rigl,0.05

RUN is a finished trunk of the same network and seed, from which every method that starts dense
continues; `exact` with 1.0 is the dense control of equal length.

| method | from | POINT |
|---|---|---|
| trunk | scratch, 30 epochs | |
| dense | scratch, 50 epochs of one cycle | |
| exact | a trunk, 20 epochs | density of all parameters, one cut at the start |
| threshold | a trunk, 20 epochs | magnitude below which all parameters are removed at the start |
| gradual, random | a trunk, 20 epochs | density of the kernels' weights, ERK |
| l1 | a trunk, 20 epochs | strength, for 10 epochs |
| sparse_vd, bc | a trunk, 20 epochs | weight of the KL |
| rewound | a trunk, 20 epochs a round | density of the kernels' weights |
| rigl, set | scratch, 50 epochs | density of the kernels' weights, ERK |

45,000 images are for training, 5,000 choose the network by accuracy. An epoch takes 1 to 3 minutes
for resnet20 on two cores, 2 to 4 for mobilenet and 4 to 8 for vgg16. Expected: results/cifar10.
"""

from sparsejax.experiment.config import base
from sparsejax.internal.lookup import lookup
from sparsejax.sparsity.parts import schedules

TRUNK_EPOCHS, LATER_EPOCHS = 30.0, 20.0
PEAKS = {'mobilenet': 0.1}  # the peak of the learning rate in the trunk; for others 0.2
REGULARISED = ('vgg16', 'resnet50')  # large enough for label smoothing and cutout
SGD = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
VARIATIONAL = ('add_kl_gradients', 'scale_by_adam', 'scale_by_learning_rate')
BOUNDED = ('add_kl_gradients', 'clip', 'scale_by_adam', 'scale_by_learning_rate', 'bound_variances')


def get_config(network: str = 'resnet20', method: str = 'trunk', point: float | None = None):
  build = lookup('method', method, METHODS)
  if (point is None) != (build in (trunk, dense)):
    how = 'needs a number as POINT' if point is None else 'takes no POINT'
    raise ValueError(
      f'the method {method} {how}: the argument is NETWORK,METHOD[,POINT], where POINT is what the '
      "method's line in this file's table says, such as the density 0.05"
    )
  return build(network) if point is None else build(network, point)


def cifar10_short(network, epochs, chain=SGD, layers='deterministic'):
  """The config that all methods share: dense from scratch in one cycle of the learning rate."""
  config = base.get_config(chain, layers=layers)
  config.model.name = network
  config.data.update(name='cifar10', split='first', validation=5000, crop_padding=4, flip=True)
  if network in REGULARISED:
    config.data.cutout = 8
    config.loss.label_smoothing = 0.1
  config.epochs, config.batch_size = epochs, 128
  if 'trace' in chain:
    config.add_decayed_weights.weight_decay = 5e-4
    config.trace.update(decay=0.9, nesterov=True)
  config.scale_by_learning_rate = one_cycle(PEAKS.get(network, 0.2), rise_epochs=3.0)
  config.evaluation.choose_by = 'accuracy'
  config.log.every_steps = 117  # three lines an epoch of 351 steps
  return config


def one_cycle(peak, *, rise_epochs):
  """The block of a learning rate that rises linearly and falls to 0 along half a cosine."""
  return dict(learning_rate=dict(schedule='cosine', value=peak, warmup_epochs=rise_epochs))


def trunk(network):
  """The run that methods that start dense continue from."""
  return cifar10_short(network, TRUNK_EPOCHS)


def dense(network):
  """The dense control of methods that start sparse."""
  return cifar10_short(network, TRUNK_EPOCHS + LATER_EPOCHS)


def _going_on(network, *links):
  """A config that continues a trunk, in a second cycle at a lower rate."""
  config = cifar10_short(network, LATER_EPOCHS, (*SGD, *links))
  config.scale_by_learning_rate = one_cycle(0.1, rise_epochs=1.0)
  return config


def exact(network, density):
  """Deep Compression at the start, to an exact density of all parameters by global rank."""
  config = _going_on(network, 'prune')
  config.method = 'deep compression (exact)'
  config.prune.update(begin_epochs=0.0, allocation='global_rank', density=density)
  return config


def threshold(network, magnitude):
  """Deep Compression at an absolute threshold."""
  config = _going_on(network, 'prune')
  config.method = 'deep compression (threshold)'
  config.prune.update(begin_epochs=0.0, allocation='absolute_threshold', threshold=magnitude)
  return config


def gradual(network, density):
  """Kernels pruned by magnitude along the cubic schedule over the first half, to ERK densities."""
  config = _going_on(network, 'prune')
  config.method = 'gradual magnitude pruning'
  config.prune.update(schedule='cubic', begin_epochs=0.0, end_epochs=LATER_EPOCHS / 2)
  config.prune.update(parameters='kernels', allocation='erk', density=density)
  return config


def random(network, density):
  """Like `gradual`, but the removed weights are drawn at random."""
  config = gradual(network, density)
  config.method = 'random pruning'
  config.prune.criterion = 'random'
  return config


def l1(network, strength):
  """Kernels shrunk by the proximal step over the first half; weights at zero by then stay zero."""
  config = _going_on(network, 'proximal_l1', 'prune')
  config.method = 'L1'
  off_epochs = LATER_EPOCHS / 2
  penalty = dict(schedule='step_decay', value=strength, factor=0.0, every_epochs=off_epochs)
  config.proximal_l1 = dict(base.LINK_DEFAULTS['proximal_l1'], strength=penalty)
  config.prune.update(begin_epochs=off_epochs, parameters='kernels', threshold=0.0, floor=0)
  return config


def rewound(network, density):
  """Rounds that each remove a fifth by global rank and repeat the trunk's second cycle."""
  config = _going_on(network, 'prune')
  config.method = 'learning-rate rewinding'
  rounds = 1
  if 0 < density <= 1:
    rounds = len(schedules.iterative(0, 1, density, fraction=0.2).steps)
  config.epochs = rounds * LATER_EPOCHS
  cycle = config.scale_by_learning_rate.learning_rate.to_dict()
  again = dict(length_epochs=LATER_EPOCHS, last_epochs=LATER_EPOCHS)
  config.scale_by_learning_rate.learning_rate = dict(schedule='rewound', base=cycle, **again)
  config.prune.update(schedule='iterative', round_fraction=0.2, begin_epochs=0.0)
  del config.prune.every_steps
  config.prune.every_epochs = LATER_EPOCHS
  config.prune.update(parameters='kernels', allocation='global_rank', density=density)
  return config


def rigl(network, density):
  """Sparse from the start; the kernels' weights are exchanged for three quarters of the run."""
  config = cifar10_short(network, TRUNK_EPOCHS + LATER_EPOCHS, (*SGD, 'prune'))
  config.method = 'RigL'
  config.chain, config.prune.inner = ('prune',), SGD
  config.prune.update(schedule='periodic', begin_epochs=0.0, end_epochs=0.75 * config.epochs)
  config.prune.update(update_rule='rigl', parameters='kernels', allocation='erk', density=density)
  return config


def set_(network, density):
  """Like `rigl`, but the regrown weights are drawn at random."""
  config = rigl(network, density)
  config.method = 'SET'
  config.prune.update_rule = 'set'
  return config


def _variational(network, layers, chain, kl_weight):
  """A posterior around the trunk's weights: Adam at 3e-3, falling to 0 over the last 8 epochs."""
  config = cifar10_short(network, LATER_EPOCHS, chain, layers)
  config.loss.label_smoothing = 0.0  # the loss is a likelihood
  config.evaluation.choose_by = 'loss'  # only the last network can be chosen
  falling = dict(schedule='linear', initial=3e-3, final=0.0, begin_epochs=12.0)
  config.scale_by_learning_rate = dict(learning_rate=falling)
  rising = dict(schedule='linear', initial=0.0, final=kl_weight, begin_epochs=0.0, end_epochs=4.0)
  config.add_kl_gradients = dict(weight=rising)
  return config


def sparse_vd(network, kl_weight):
  """Sparse variational dropout; variances start low, or small weights would count as noise."""
  config = _variational(network, 'sparse_vd', VARIATIONAL, kl_weight)
  config.method = 'sparse variational dropout'
  config.sparse_vd.log_variance = -15.0
  return config


def bc(network, kl_weight):
  """Bayesian compression of whole filters with a normal-Jeffreys prior and the log's bounds."""
  config = _variational(network, 'group_normal_jeffreys', BOUNDED, kl_weight)
  config.method = 'Bayesian compression (normal-jeffreys)'
  config.clip = dict(max_delta=0.2)
  config.bound_variances.maximum = 0.5
  return config


METHODS = {
  **{'trunk': trunk, 'dense': dense, 'exact': exact, 'threshold': threshold, 'gradual': gradual},
  **{'random': random, 'l1': l1, 'sparse_vd': sparse_vd, 'bc': bc, 'rewound': rewound},
  **{'rigl': rigl, 'set': set_},
}
