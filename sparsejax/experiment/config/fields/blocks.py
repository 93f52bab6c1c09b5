"""The settings that a chain, events, layers and schedules bring, each in a block of its name."""

from sparsejax.experiment.config.fields import pruning_blocks
from sparsejax.experiment.config.fields.field import (
  DECAY,
  FRACTION,
  NOT_NEGATIVE,
  POSITIVE,
  Field,
  own_fields,
  read_when,
)
from sparsejax.experiment.config.fields.pruning_blocks import EXCLUDE, GROUPED, INSIDE, PARAMETERS
from sparsejax.experiment.config.setting_kinds import (
  Choice,
  Flag,
  Integer,
  Kind,
  Names,
  Number,
  Optional,
  Pattern,
  Scheduled,
  Sides,
  Table,
)
from sparsejax.posterior import FAMILIES, Family

_INNER = "an optimizer with second moments and its learning rate, such as ('adam',)"
# The settings of each link that `chain` may name: of four of Optax's (add_decayed_weights, trace,
# scale_by_adam and scale_by_learning_rate) and of ours. Other Optax links may be named too; their
# settings are their own arguments.
LINKS: dict[str, dict[str, Field]] = {
  'add_decayed_weights': {
    'weight_decay': Field(
      5e-4,
      Scheduled(NOT_NEGATIVE),
      "L2: added to the gradient as weight_decay * parameter; the log's value, Optax's is 0",
    ),
  },
  'trace': {
    'decay': Field(0.9, Scheduled(DECAY), 'heavy-ball momentum, which Optax calls a trace'),
    'nesterov': Field(False, Flag(), "Nesterov's form of momentum"),
  },
  'scale_by_adam': {
    'b1': Field(0.9, Scheduled(DECAY), 'decay of the mean of gradients'),
    'b2': Field(0.999, Scheduled(DECAY), 'decay of the mean of squared gradients'),
    'eps': Field(1e-8, Scheduled(NOT_NEGATIVE), 'added to the root of the mean of squares'),
  },
  'scale_by_learning_rate': {
    'learning_rate': Field(0.1, Scheduled(NOT_NEGATIVE), 'the learning rate'),
  },
  'proximal_l1': {
    'strength': Field(1e-5, Scheduled(NOT_NEGATIVE), 'the loss gains strength * sum |p|'),
    'parameters': Field(
      'kernels', PARAMETERS, 'which parameters shrink; all: biases and BatchNorm too'
    ),
    'exclude': EXCLUDE,
    'inner': Field((), Names(), _INNER),
  },
  'proximal_group_l1': {
    'strength': Field(1e-5, Scheduled(NOT_NEGATIVE), 'the loss gains strength * sum_g w_g ||p_g||'),
    'granularity': Field('filters', Choice(GROUPED), 'what a group is'),
    'block': Field(
      (4, 4), Sides(), 'inputs x outputs', read_when('proximal_group_l1.granularity', 'blocks')
    ),
    'group_weight': Field(
      'sqrt_size',
      Choice(('sqrt_size', 'one')),
      "w_g: the root of the group's number of weights, or one",
    ),
    'parameters': Field('kernels', PARAMETERS, 'which parameters shrink'),
    'exclude': EXCLUDE,
    'inner': Field((), Names(), _INNER),
  },
  'prune': pruning_blocks.of_prune(),
  'straight_through': pruning_blocks.of_straight_through(),
  'hold': {
    'parameters': Field('kernels', PARAMETERS, 'whose zeros are held; all: biases too'),
    'exclude': EXCLUDE,
    'inner': INSIDE,
  },
  'add_kl_gradients': {
    'weight': Field(
      1.0, Scheduled(NOT_NEGATIVE), 'the weight of the KL over the number of training examples'
    ),
  },
  'bound_variances': {
    'maximum': Field(0.04, POSITIVE, 'the largest posterior variance'),
    'where': Field('', Pattern(), "parameter paths to bound, such as '^fc1/'; empty: all"),
  },
  'rewind': {
    'to_epochs': Field(5.0, NOT_NEGATIVE, 'the time whose weights every cut of `prune` restores'),
  },
}

_LOG_VARIANCE = Number(-80.0, 80.0)  # `posterior.kl` is finite there
_KERNEL_STD = Field(
  None, Optional(NOT_NEGATIVE), "the initial deviation of the means; None: the network's own rule"
)

# The arguments that `nn.variational.makers` takes for any family.
MAKER_ARGUMENTS = ('family', 'training_mask', 'dense_groups', 'conv_groups')


def layer_fields(name: str, family: Family) -> dict[str, Field]:
  """Returns the fields of layers with posteriors of one family."""
  bound = family.bound
  inside = Number() if bound is None else Number(-bound, bound, above=True, below=True)
  block = {
    'threshold': Field(
      family.threshold, inside, 'weights or groups with log alpha at or above it are removed'
    ),
    'thresholds': Field({}, Table(inside), 'thresholds of layers that do not use `threshold`'),
    'kernel_std': _KERNEL_STD,
    'log_variance': Field(family.log_variance, _LOG_VARIANCE, 'the initial log-variances'),
  }
  if family.masks:
    meaning = 'means of weights beyond the threshold already count as 0 in training'
    block['training_mask'] = Field(True, Flag(), meaning)
  if family.has_groups:
    sides = Choice(('inputs', 'outputs'))
    block['dense_groups'] = Field('inputs', sides, 'the groups of a dense layer')
    block['conv_groups'] = Field('outputs', sides, 'the groups of a convolution')
  if taken := [key for key in family.settings if key in block or key in MAKER_ARGUMENTS]:
    raise ValueError(f"its setting '{taken[0]}' must have another name: layers have that one")
  return block | own_fields(name, family.settings)


# The settings of each family of layers with posteriors.
LAYERS = {name: layer_fields(name, family) for name, family in FAMILIES.items()}
EVENTS: dict[str, dict[str, Field]] = {
  'lobs': {
    'at_epochs': Field(
      60.0, NOT_NEGATIVE, 'when it happens; `prune` must begin then, to hold the zeros'
    ),
    'batches': Field(
      50,
      Integer(1),
      'batches of unaugmented training examples from which the layers are solved',
      read_when('lobs.method', 'lobs'),
    ),
    'density': Field(0.07, FRACTION, 'active fraction of the chosen kernels'),
    'allocation': Field(
      'global_rank',
      Choice(('global_rank', 'uniform', 'erk')),
      'how many weights stay in each layer, by magnitudes',
    ),
    'exclude': EXCLUDE,
    'method': Field(
      'lobs', Choice(('lobs', 'magnitude')), 'magnitude: only zeroes the smallest weights'
    ),
  },
  'recalibrate_batch_norm': {
    'at_epochs': Field(
      61.0, NOT_NEGATIVE, 'when it happens; at the epoch of a cut the network is still dense'
    ),
    'batches': Field(
      50, Integer(1), 'batches of unaugmented training examples to average moments over'
    ),
  },
}
# The settings of each schedule; `warmup` and the durations may be left out.
SCHEDULES: dict[str, dict[str, Kind]] = {
  'constant': {'value': Number()},
  'step_decay': {'value': NOT_NEGATIVE, 'factor': NOT_NEGATIVE, 'every': POSITIVE},
  'linear': {
    **{'initial': NOT_NEGATIVE, 'final': NOT_NEGATIVE},
    **{'begin': NOT_NEGATIVE, 'end': NOT_NEGATIVE},
  },
  'cosine': {'value': NOT_NEGATIVE, 'final': NOT_NEGATIVE},
  'sgdr': {'value': NOT_NEGATIVE, 'first': POSITIVE, 'multiply': Number(1.0)},
  'rewound': {'base': Scheduled(NOT_NEGATIVE), 'length': POSITIVE, 'last': POSITIVE},
}
BLOCKS = LINKS | EVENTS | LAYERS  # the blocks that a chain, events and layers need
