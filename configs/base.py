"""Every field of an experiment: its default, its unit and what it means. Other configs start here.

A duration carries its unit in its name: `_epochs` of the training split, `_steps`, or `_examples`.
Where a link's setting is a number, a schedule's block may stand as well, for example
dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0).
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

# Raised whenever a default below changes: a run's directory is named after the differences from
# the defaults, and the same differences from other defaults are another experiment.
VERSION = 2

# The settings of each link that `chain` may name and of each event, as they are by default. Other
# links of Optax may be named too; their settings are their own arguments.
LINKS = {
  'add_decayed_weights': {
    'weight_decay': 5e-4,  # L2: added to the gradient as weight_decay * parameter
  },
  'trace': {
    'decay': 0.9,  # heavy-ball momentum
    'nesterov': False,
  },
  'scale_by_adam': {
    'b1': 0.9,
    'b2': 0.999,
    'eps': 1e-8,
  },
  'scale_by_learning_rate': {
    'learning_rate': 0.1,
  },
  'prune': {
    'schedule': 'one_shot',  # or 'cubic', gradual from begin to end
    'begin_epochs': 60.0,  # one_shot: when; cubic: where the falling starts
    'end_epochs': 120.0,  # cubic only: where the target is reached
    'every_steps': 100,  # cubic only: between two renewals of the masks
    'target': 0.02,  # active fraction; for the allocation absolute_threshold: the threshold
    'allocation': 'absolute_threshold',  # or global_rank, uniform
    'criterion': 'magnitude',  # or saliency, random
    'granularity': 'weight',
    'update_rule': 'nested',
    'parameters': 'all',  # or 'kernels': biases and BatchNorm stay
    'exclude': (),  # regular expressions over parameter paths, such as ('^classifier/',)
    'floor': 1,  # weights that every layer keeps at least
    'inner': (),  # links that run inside the masks instead of before them
  },
}
EVENTS = {
  'recalibrate_batch_norm': {
    'at_epochs': 61.0,  # when; at the very epoch of a cut the network is still dense
    'batches': 50,  # of training examples, unaugmented, over which the moments are averaged
  },
}

SGD = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')


def get_config(chain=SGD, events=()):
  """The defaults, with one block of settings for each link of the chain and for each event."""
  config = ConfigDict()
  config.name = ''  # set from the config's file name; enters no hash
  config.method = 'dense'  # what tables call this way of training; enters no hash
  config.seed = 0  # of the initial weights, the order of examples, augmentation and dropout
  config.epochs = 180.0  # length of the run, in epochs of the training split
  config.batch_size = 128  # examples a step, over all devices together
  config.chain = tuple(chain)  # links in the order in which updates pass them
  config.events = tuple(events)  # what happens between steps
  config.layers = 'deterministic'  # the family of layers that the model is built of
  config.init_from = placeholder(str)  # run directory whose best network training starts from

  config.model = ConfigDict()
  config.model.name = 'lenet300'
  config.model.width = placeholder(int)  # planes of the stem; none: the paper's
  config.model.dropout = 0.0  # rate where the dense network starts; falls as weights go
  config.model.dtype = 'float32'  # of the computation; parameters are float32 always
  config.model.sync_batch_norm = False  # moments over all devices, not over each for itself

  config.data = ConfigDict()
  config.data.name = 'digits'  # or mnist, fashion_mnist, cifar10, cifar100, npz:PATH
  config.data.dir = placeholder(str)  # of tensorflow-datasets; none: its own default; in no hash
  config.data.split = 'shuffle'  # or 'first': the first examples train, the last validate
  config.data.split_seed = 0  # of the shuffle that splits, the same for every run's seed
  config.data.validation = placeholder(int)  # examples; none: the data set's default
  config.data.limit = placeholder(int)  # training examples used; none: all
  config.data.crop_padding = 0  # pixels of zero padding before the random crop
  config.data.flip = False  # horizontally, at random

  config.evaluation = ConfigDict()
  config.evaluation.every_epochs = 1.0
  config.evaluation.batch_size = 500  # examples, over all devices together

  config.log = ConfigDict()  # enters no hash
  config.log.every_steps = 50  # a line of metrics
  config.log.checkpoint_every_epochs = 1.0
  config.log.keep_checkpoints = 2  # the latest so many; more than one, should one be damaged
  config.log.tensorboard = False  # event files beside metrics.jsonl

  return complete(config)


def complete(config):
  """Gives every link and event a block of its default settings, and drops blocks without use."""
  with config.unlocked():
    for names, defaults in ((config.chain, LINKS), (config.events, EVENTS)):
      inner = tuple(config.get('prune', {}).get('inner', ())) if defaults is LINKS else ()
      for name in (*names, *inner):
        if name in defaults and name not in config:
          config[name] = ConfigDict(defaults[name])
      for name in set(defaults) - {*names, *inner}:
        if name in config:
          del config[name]
  return config
