"""Every field of an experiment: its default, its unit and what it means. Other configs start here.

A duration carries its unit in its name: `_epochs` of the training split, `_steps`, or `_examples`.
Where a link's setting is a number, a schedule's block may stand as well, for example
dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0).
"""

import copy

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
  'proximal_l1': {
    'strength': 1e-5,  # of the penalty strength * sum |p|, in loss; or a schedule's block
    'parameters': 'kernels',  # or 'all': biases and BatchNorm too
    'exclude': (),  # regular expressions over parameter paths
    'inner': (),  # an optimizer with second moments and its learning rate, such as ('adam',)
  },
  'proximal_group_l1': {
    'strength': 1e-5,  # of the penalty strength * sum_g w_g ||p_g||; or a schedule's block
    'granularity': 'filters',  # or input_channels, blocks
    'block': (4, 4),  # blocks only: inputs x outputs
    'group_weight': 'sqrt_size',  # w_g: the root of the group's number of weights; or one
    'parameters': 'kernels',
    'exclude': (),
    'inner': (),
  },
  'prune': {
    'schedule': 'one_shot',  # or cubic (gradual), periodic (at one target), rounds (share by share)
    'begin_epochs': 60.0,  # one_shot: when; rounds: the first; else where it starts
    'end_epochs': 120.0,  # cubic: where the target is reached; periodic: where renewals end
    'every_steps': 100,  # between two renewals of the masks; not of one_shot
    'round_share': 0.2,  # rounds only: of what is left, what each removes
    'target': 0.02,  # active fraction; for the allocation absolute_threshold: the threshold
    'unit': 'groups',  # of an active fraction: or weights, macs, then of the whole network
    'allocation': 'absolute_threshold',  # or global_rank, uniform, erk
    'criterion': 'magnitude',  # or saliency, fisher, lamp, random
    'granularity': 'weight',  # or filters, input_channels, blocks, n_of_m
    'block': (4, 4),  # blocks only: inputs x outputs
    'm': 4,  # n_of_m only: N of every m consecutive inputs stay, N = target * m
    'update_rule': 'nested',  # masks only shrink; or set, rigl: weights are exchanged
    'exchange_share': 0.3,  # set, rigl: of a layer's active weights; rigl's falls to 0 at the end
    'start': 'random',  # set, rigl: the first mask; or by the criterion
    'parameters': 'all',  # or 'kernels': biases and BatchNorm stay
    'exclude': (),  # regular expressions over parameter paths, such as ('^classifier/',)
    'floor': 1,  # weights (groups) that every layer keeps at least
    'inner': (),  # links that run inside the masks instead of before them
  },
  'add_kl_gradients': {
    'weight': 1.0,  # of the KL, over the number of training examples; or a schedule's block
  },
  'bound_variances': {
    'maximum': 0.04,  # the largest posterior variance
    'where': '',  # a regular expression over parameter paths, such as '^fc1/'; none: everywhere
  },
  'rewind': {
    'to_epochs': 5.0,  # where the weights come from that return at every cut of `prune`
  },
}
# The settings of each family of layers with posteriors.
_GROUPED = {
  'thresholds': {},  # of log alpha by layer, where it is not `threshold`
  'kernel_std': placeholder(float),  # of the initial means; none: the network's own rule
  'log_variance': -9.0,  # of all posteriors, initially
  'dense_groups': 'inputs',  # what has a scale: or outputs, which are the classes in the last layer
  'conv_groups': 'outputs',
}
LAYERS = {
  'sparse_vd': {
    'threshold': 3.0,  # of log alpha: weights of so much noise or more go
    'thresholds': {},
    'training_mask': True,  # their means count as 0 already in training
    'kernel_std': placeholder(float),
    'log_variance': -10.0,
  },
  'group_normal_jeffreys': _GROUPED | {'threshold': -3.0},
  'group_horseshoe': _GROUPED | {'threshold': 3.0},
}
EVENTS = {
  'lobs': {
    'at_epochs': 60.0,  # when; at the begin of `prune`, which holds the zeros from then on
    'batches': 50,  # of training examples, unaugmented, that the layers are solved over
    'target': 0.07,  # active fraction of the chosen kernels
    'allocation': 'global_rank',  # of magnitudes, how many stay in each layer; or uniform, erk
    'exclude': (),  # regular expressions over parameter paths, such as ('^classifier/',)
    'method': 'lobs',  # or magnitude, which zeroes the smallest and moves nothing
  },
  'recalibrate_batch_norm': {
    'at_epochs': 61.0,  # when; at the very epoch of a cut the network is still dense
    'batches': 50,  # of training examples, unaugmented, over which the moments are averaged
  },
}

SGD = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')


def get_config(chain=SGD, events=(), layers='deterministic'):
  """The defaults, with a block of settings for each link, each event and the family of layers."""
  config = ConfigDict()
  config.name = ''  # set from the config's file name; enters no hash
  config.method = 'dense'  # what tables call this way of training; enters no hash
  config.seed = 0  # of the initial weights, the order of examples, augmentation and dropout
  config.epochs = 180.0  # length of the run, in epochs of the training split
  config.batch_size = 128  # examples a step, over all devices together
  config.chain = tuple(chain)  # links in the order in which updates pass them
  config.events = tuple(events)  # what happens between steps
  config.layers = layers  # or sparse_vd, group_normal_jeffreys, group_horseshoe
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
  config.data.cutout = 0  # side in pixels of a square set to the mean, at random; 0 cuts nothing
  config.data.scale = 'standardised'  # by channel; or symmetric: 2 x - 1; centred: x - mean image

  config.loss = ConfigDict()
  config.loss.label_smoothing = 0.0  # share of each label spread over all classes; training only

  config.evaluation = ConfigDict()
  config.evaluation.every_epochs = 1.0
  config.evaluation.choose_by = 'loss'  # or 'accuracy': what is best on the validation split
  config.evaluation.batch_size = 500  # examples, over all devices together
  # Of training examples, unaugmented: a network deployed from posteriors gets BatchNorm's averages
  # over so many, without the noise, whenever it is validated and when it is delivered. Every device
  # passes each batch whole.
  config.evaluation.batch_norm_batches = 50

  config.log = ConfigDict()  # enters no hash
  config.log.every_steps = 50  # a line of metrics
  config.log.checkpoint_every_epochs = 1.0
  config.log.keep_checkpoints = 2  # the latest so many; more than one, should one be damaged
  config.log.tensorboard = False  # event files beside metrics.jsonl

  return complete(config)


def defaults(settings):
  """The plain settings, the differences from which name the run of a config of this chain."""
  # Of deterministic layers: so a family of others, and every setting of it, enters the hash.
  return get_config(settings['chain'], settings['events']).to_dict()


def links(config):
  """Every link by name: those of the chain, and those that run inside another one."""
  names = list(config['chain'])
  for name in names:
    inner = (config.get(name) or {}).get('inner', ())
    names.extend(link for link in inner if link not in names)
  return names


def complete(config):
  """Gives every link and event a block of its default settings, and drops blocks without use."""
  with config.unlocked():
    used = ((links(config), LINKS), (config.events, EVENTS), ((config.layers,), LAYERS))
    for names, defaults in used:
      for name in names:
        if name in defaults and name not in config:
          # A copy, placeholders too, or what a config sets would be every config's default.
          config[name] = ConfigDict(copy.deepcopy(defaults[name]))
      for name in set(defaults) - set(names):
        if name in config:
          del config[name]
  return config
