"""Recipes that several configs share: the log's CIFAR-10 training, and Deep Compression's cut."""

import math

from ml_collections import ConfigDict

from sparsejax.experiment.config import base
from sparsejax.sparsity import schedules


def cifar10_sgd(model, *, chain=base.SGD, events=()):
  """The log's recipe: 180 epochs of SGD, learning rate 0.1 falling tenfold every 60 epochs."""
  config = base.get_config(chain, events)
  config.model.name = model
  config.data.name = 'cifar10'
  config.data.split = 'first'
  config.data.crop_padding = 4
  config.data.flip = True
  config.epochs = 180.0
  config.scale_by_learning_rate = step_decay(0.1, every_epochs=60.0)
  return config


def step_decay(value, *, factor=0.1, every_epochs):
  """The block of a learning rate that falls by a factor every so many epochs."""
  rate = dict(schedule='step_decay', value=value, factor=factor, every_epochs=every_epochs)
  return ConfigDict({'learning_rate': rate})


def number(what, text, allowed):
  """Returns a config's argument as a number, or raises a ValueError of one line."""
  try:
    return float(text)
  except ValueError:
    raise ValueError(f'{what} {text!r}: allowed is {allowed}') from None


def keep(config, active_fraction):
  """Prunes to an exact active fraction of `prune.parameters`, given as a config's argument.

  Without an argument the config's own cut stays. 1.0 keeps everything: the dense control of equal
  length.
  """
  if not active_fraction:
    return config
  config.prune.allocation = 'global_rank'
  config.prune.target = number('active fraction', active_fraction, 'a number up to 1')
  config.method = 'deep compression (exact)'
  return config


def cifar10_deep_compression(model, active_fraction):
  """Dense for 60 epochs, one cut where the learning rate first falls, 120 epochs of retraining."""
  config = cifar10_sgd(model, chain=(*base.SGD, 'prune'))
  config.method = 'deep compression (threshold)'
  return keep(config, active_fraction)


def mnist_sgd(model, learning_rate, epochs, chain=base.SGD, events=()):
  """SGD on MNIST, the learning rate falling tenfold after each third of the run."""
  config = base.get_config(chain, events)
  config.model.name = model
  config.data.name = 'mnist'
  config.epochs = epochs
  config.scale_by_learning_rate = step_decay(learning_rate, every_epochs=epochs / 3)
  config.log.every_steps = 143  # three lines an epoch of 429 steps
  config.log.checkpoint_every_epochs = 5.0
  return config


def mnist_deep_compression(model, learning_rate, epochs, active_fraction):
  """A LeNet on MNIST: dense for a third of the run, one cut to a share of the weights, retrained.

  The share is exact and counts the kernels' weights, as the papers on MNIST do.
  """
  config = mnist_sgd(model, learning_rate, epochs, (*base.SGD, 'prune'))
  config.prune.begin_epochs = epochs / 3
  config.prune.parameters = 'kernels'
  return keep(config, active_fraction)


def mnist_lobs(model, learning_rate, epochs, at_epochs, active_fraction):
  """A LeNet on MNIST: dense, then L-OBS to a share of the weights, then a short retraining.

  The learning rate falls tenfold halfway to the surgery and there once more.
  """
  config = mnist_sgd(model, learning_rate, epochs, (*base.SGD, 'prune'), ('lobs',))
  config.scale_by_learning_rate = step_decay(learning_rate, every_epochs=at_epochs / 2)
  return _operated(config, at_epochs, active_fraction)


def cifar10_lobs(model, at_epochs, active_fraction):
  """The log's recipe with the surgery in it, and BatchNorm's averages made anew after it."""
  events = ('lobs', 'recalibrate_batch_norm')  # both at one step, in this order
  config = cifar10_sgd(model, chain=(*base.SGD, 'prune'), events=events)
  config.recalibrate_batch_norm.at_epochs = at_epochs
  return _operated(config, at_epochs, active_fraction)


def _operated(config, at_epochs, active_fraction):
  config.method = 'L-OBS'
  config.prune.begin_epochs = config.lobs.at_epochs = at_epochs
  config.prune.target = 0.0  # the threshold: whatever the surgery left at zero stays there
  config.prune.parameters = 'kernels'
  config.lobs.target = number('active fraction', active_fraction, 'a number up to 1')
  return config


def gradually(config, begin_epochs, end_epochs):
  """The same cut by the cubic schedule, a little every 100 steps (Zhu and Gupta 2017)."""
  config.method = 'gradual magnitude pruning'
  config.prune.schedule = 'cubic'
  config.prune.begin_epochs = begin_epochs
  config.prune.end_epochs = end_epochs
  return config


def at_random(config):
  """What is removed is drawn by lot: the baseline that every criterion has to beat."""
  config.method = 'random pruning'
  config.prune.criterion = 'random'
  return config


def exchanging(config, rule):
  """Sparse from the first step: every 100 steps a share of the weights is exchanged for others.

  Erdos-Renyi-Kernel densities; the optimizer runs inside the masks, so that a weight that comes
  back starts without momentum; nothing is exchanged in the last quarter of the run.
  """
  config.method = {'set': 'SET', 'rigl': 'RigL'}[rule]
  config.chain = ('prune',)
  config.prune.inner = base.SGD
  config.prune.schedule = 'periodic'
  config.prune.begin_epochs = 0.0
  config.prune.end_epochs = 0.75 * config.epochs
  config.prune.allocation = 'erk'
  config.prune.update_rule = rule
  return config


def cifar10_pruned(model, active_fraction):
  """The log's recipe with a prune link that keeps an exact share of the kernels' weights."""
  config = cifar10_deep_compression(model, active_fraction)
  config.prune.parameters = 'kernels'
  return config


def cifar10_exchanging(model, active_fraction, rule):
  """Sparse from the first step, by SET or RigL, whose exchange ends at three quarters."""
  return exchanging(cifar10_pruned(model, active_fraction), rule)


def cifar10_shrunk(model, strength, *, restarts=False):
  """L1 on every kernel for half of 180 epochs, then what is left without it.

  The weight decay stays at 5e-4: the log's networks trained without any and overfitted. With
  restarts the rate is SGDR's, 150 epochs of which the last cycle, from 70, is without the penalty.
  """
  config = cifar10_sgd(model)
  if restarts:
    warm_restarts(config)
  return shrunk(config, strength, off_epochs=70.0 if restarts else 90.0)


def warm_restarts(config):
  """SGDR as in the log: 0.2 falls along half a cosine in 10, 20, 40 and 80 epochs."""
  config.epochs = 150.0
  rate = dict(schedule='sgdr', value=0.2, first_epochs=10.0, multiply=2.0)
  config.scale_by_learning_rate = ConfigDict({'learning_rate': rate})
  return config


def cifar10_gradual(model, active_fraction):
  """Pruned between the epochs 20 and 120 of 180, of which the last 60 are at the lowest rate."""
  return gradually(cifar10_pruned(model, active_fraction), begin_epochs=20.0, end_epochs=120.0)


def shrunk(config, strength, off_epochs):
  """L1 by the proximal step: what it brings to zero by `off_epochs` stays zero from then on.

  There the penalty ends, while the rate is still high enough for the weights that are left to grow
  out of its bias.
  """
  config.method = 'L1'
  config.chain = (*base.SGD, 'proximal_l1', 'prune')
  value = number('L1 strength', strength, 'a number, 0 or more')
  if not 0 <= value < math.inf:
    raise ValueError(f'L1 strength {strength}: allowed is a number, 0 or more')
  falling = dict(schedule='step_decay', value=value, factor=0.0, every_epochs=off_epochs)
  config.proximal_l1 = ConfigDict(base.LINKS['proximal_l1'] | {'strength': falling})
  config.prune = ConfigDict(base.LINKS['prune'])
  config.prune.begin_epochs = off_epochs
  config.prune.parameters = 'kernels'
  config.prune.target = 0.0
  config.prune.floor = 0
  return config


def by_filters(config, exclude):
  """The L1 recipe as the group lasso over filters, each norm with weight 1."""
  config.method = 'structured sparsity learning'
  config.chain = (*base.SGD, 'proximal_group_l1', 'prune')
  with config.unlocked():
    strength = config.proximal_l1.strength.to_dict()
    del config.proximal_l1
  parts = {'strength': strength, 'group_weight': 'one', 'exclude': exclude}
  config.proximal_group_l1 = ConfigDict(base.LINKS['proximal_group_l1'] | parts)
  return config


def cifar10_rewound(model, active_fraction, last_epochs, what='rate'):
  """Rounds of a cut by a fifth and the last epochs of the schedule again, to an active fraction.

  With 'weights' what is left goes back to its values at the begin of these epochs; 'rate' goes on.
  """
  if what not in ('rate', 'weights'):
    raise ValueError(f"rewinding {what!r}: allowed are 'rate' and 'weights'")
  config = cifar10_pruned(model, active_fraction)
  config.method = 'learning-rate rewinding'
  dense = config.epochs
  in_rounds(config, dense, last_epochs)
  if what == 'weights':
    config.method = 'weight rewinding'
    config.chain = (*base.SGD, 'rewind', 'prune')
    config.rewind = ConfigDict({'to_epochs': dense - last_epochs})
  return config


def in_rounds(config, dense_epochs, last_epochs):
  """A fifth of what is left goes, and the last epochs of the schedule follow, again and again.

  The first round begins after `dense_epochs`; the schedule as it stands is as long as the epochs of
  the config.
  """
  share, target, length = 0.2, config.prune.target, config.epochs
  possible = 0 < target <= 1  # what is not is refused where every target is
  count = len(schedules.rounds(0, 1, target, share=share).steps) if possible else 1
  config.epochs = dense_epochs + count * last_epochs
  config.prune.schedule = 'rounds'
  config.prune.round_share = share
  config.prune.begin_epochs = dense_epochs
  with config.unlocked():
    del config.prune.every_steps
    config.prune.every_epochs = last_epochs
  base_rate = config.scale_by_learning_rate.learning_rate.to_dict()
  rate = dict(schedule='rewound', base=base_rate, length_epochs=length, last_epochs=last_epochs)
  config.scale_by_learning_rate = ConfigDict({'learning_rate': rate})
  return config


VARIATIONAL = ('add_kl_gradients', 'scale_by_adam', 'scale_by_learning_rate')
BOUNDED = ('add_kl_gradients', 'clip', 'scale_by_adam', 'scale_by_learning_rate', 'bound_variances')


def warm_up(kl_weight, begin_epochs, end_epochs):
  """The block of a KL weight that rises linearly from 0 between two epochs."""
  final = number('KL weight', kl_weight, 'a number, 0 or more')
  parts = dict(initial=0.0, final=final, begin_epochs=begin_epochs, end_epochs=end_epochs)
  return ConfigDict(dict(schedule='linear', **parts))


def mnist_sparse_vd(model, kl_weight, constant_epochs):
  """A LeNet on MNIST as the authors of sparse variational dropout trained it."""
  config = base.get_config(VARIATIONAL, layers='sparse_vd')
  config.method = 'sparse variational dropout'
  config.model.name = model
  config.data.name = 'mnist'
  config.data.scale = 'centred'
  config.sparse_vd.kernel_std = 0.01
  config.epochs = 200.0
  config.batch_size = 100
  falling = dict(schedule='linear', initial=1e-3, final=0.0, begin_epochs=constant_epochs)
  config.scale_by_learning_rate = ConfigDict({'learning_rate': falling})
  config.add_kl_gradients = ConfigDict({'weight': warm_up(kl_weight, 5.0, 20.0)})
  config.data.validation = 1000  # the papers train on all 60,000; nothing is chosen here
  config.log.every_steps = 295  # two lines an epoch of 590 steps
  config.log.checkpoint_every_epochs = 5.0
  return config


def mnist_bayesian_compression(model, layers, kl_weight, epochs):
  """A LeNet on MNIST much as the authors of Bayesian compression trained it.

  Three things differ. The KL's weight rises over a quarter of the run and not over four epochs:
  what is left fits better by 0.2 points of error, and is no larger. The learning rate is three
  times the paper's: at 1e-3 groups are still leaving after 150 epochs. And it falls to 0 over the
  last third.
  As there, the first layer's variances are bounded, or it would let go of its inputs before the
  others have learned to use them.
  """
  config = base.get_config(BOUNDED, layers=layers)
  config.method = f'Bayesian compression ({layers.removeprefix("group_").replace("_", "-")})'
  config.model.name = model
  config.data.name = 'mnist'
  config.data.scale = 'symmetric'
  config.epochs = epochs
  config.clip = ConfigDict({'max_delta': 0.2})
  config.bound_variances.where = {'lenet300': '^fc1/', 'lenet5': '^conv1/'}[model]
  config.add_kl_gradients = ConfigDict({'weight': warm_up(kl_weight, 0.0, epochs / 4)})
  falling = dict(schedule='linear', initial=3e-3, final=0.0, begin_epochs=0.65 * epochs)
  config.scale_by_learning_rate = ConfigDict({'learning_rate': falling})
  config.data.validation = 1000  # as above
  config.log.every_steps = 230  # two lines an epoch of 460 steps
  config.log.checkpoint_every_epochs = 5.0
  return config


def cifar10_variational(model, layers, chain, kl_weight):
  """The log's network and images under Adam: 180 epochs, the learning rate falling in the last 90.

  The KL's weight rises over 30 epochs: at the start it is many nats an example, and at full weight
  everything goes before anything is learned.
  """
  config = cifar10_sgd(model, chain=chain)
  config.layers = layers
  base.complete(config)
  config.add_kl_gradients = ConfigDict({'weight': warm_up(kl_weight, 0.0, 30.0)})
  falling = dict(schedule='linear', initial=1e-3, final=0.0, begin_epochs=90.0)
  config.scale_by_learning_rate = ConfigDict({'learning_rate': falling})
  return config


def cifar10_sparse_vd(model, kl_weight):
  """Sparse variational dropout of every kernel, BatchNorm and biases as they are."""
  config = cifar10_variational(model, 'sparse_vd', VARIATIONAL, kl_weight)
  config.method = 'sparse variational dropout'
  return config


def cifar10_bayesian_compression(model, kl_weight):
  """Bayesian compression of whole filters, normal-Jeffreys prior, with the log's bounds."""
  config = cifar10_variational(model, 'group_normal_jeffreys', BOUNDED, kl_weight)
  config.method = 'Bayesian compression (normal-jeffreys)'
  config.clip = ConfigDict({'max_delta': 0.2})
  config.bound_variances.maximum = 0.5
  return config
