"""Every field of an experiment: its default, its values, its meaning, and when it is read.

A duration carries its unit in its name: `_epochs` of the training split, `_steps` or `_examples`;
it may be given in any of them. A schedule's block may replace a number where the field says so:
dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.config.setting_kinds import (
  ByLayer,
  Choice,
  Flag,
  Integer,
  Kind,
  Name,
  Names,
  Number,
  Optional,
  Pattern,
  Patterns,
  Period,
  Scheduled,
  Sides,
  Table,
  Text,
  WrongError,
)
from sparsejax.posterior import FAMILIES, Family
from sparsejax.posterior.layers import DETERMINISTIC


class Read(NamedTuple):
  """When a field is read.

  Attributes:
    words: the settings with which it is read.
    when: a function from the resolved settings to whether it is read.
  """

  words: str
  when: Callable[[Mapping[str, Any]], bool]


class Field(NamedTuple):
  """One setting.

  Attributes:
    default: its value unless another is given.
    kind: the values it may have.
    meaning: what it means.
    read: when it is read; None means always.
  """

  default: Any
  kind: Kind
  meaning: str
  read: Read | None = None


def _read_when(field: str, *values: Any) -> Read:
  """Returns the condition that another field has one of these values."""
  block, _, name = field.partition('.')
  *first, last = map(repr, values)
  words = f'{", ".join(first)} or {last}' if first else last
  return Read(f'the {field} {words}', lambda config: config[block][name] in values)


UNITS = ('epochs', 'steps', 'examples')
SGD = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
NOT_NEGATIVE, POSITIVE = Number(0.0), Number(0.0, above=True)
SHARE, FRACTION = Number(0.0, 1.0), Number(0.0, 1.0, above=True)
DECAY = Number(0.0, 1.0, below=True)  # the decay of a running mean
STEPS = Period()

DENSITY_UNITS = ('groups', 'weights', 'macs')
_OF_SCHEDULES = {
  'one_shot': 'one cut',
  'cubic': 'gradual',
  'periodic': 'at one density',
  'iterative': 'in rounds',
}
_OF_ENDS = {'cubic': 'when the density is reached', 'periodic': 'when the mask updates end'}
PRUNING_SCHEDULES = {  # of each link that removes weights by a schedule
  'prune': tuple(_OF_SCHEDULES),
  'straight_through': (
    'one_shot',
    'cubic',
    'iterative',
  ),  # it has no 'periodic'
}
ALLOCATIONS = ('absolute_threshold', 'global_rank', 'uniform', 'erk', 'by_layer')
GROUPED = ('filters', 'input_channels', 'blocks')  # granularities of whole groups
_PARAMETERS = Choice(('kernels', 'all'))
_EXCLUDE = Field((), Patterns(), "parameter paths to leave out, such as ('^classifier/',)")
_INNER = "an optimizer with second moments and its learning rate, such as ('adam',)"
_INSIDE = Field((), Names(), 'links that run inside the masks instead of before them')
_EXCHANGED = _read_when('prune.update_rule', 'set', 'rigl')


def _when(link: str) -> dict[str, Field]:
  """The settings of a link's schedule: when it removes weights."""
  schedules = PRUNING_SCHEDULES[link]
  repeated = [schedule for schedule in schedules if schedule != 'one_shot']
  ending = [schedule for schedule in ('cubic', 'periodic') if schedule in schedules]
  return {
    'schedule': Field(
      'one_shot',
      Choice(schedules),
      '; '.join(f'{schedule}: {_OF_SCHEDULES[schedule]}' for schedule in schedules),
    ),
    'begin_epochs': Field(
      60.0,
      NOT_NEGATIVE,
      'when the schedule begins: one_shot cuts then, cubic every_steps later for the first time',
    ),
    'end_epochs': Field(
      120.0,
      NOT_NEGATIVE,
      '; '.join(f'{schedule}: {_OF_ENDS[schedule]}' for schedule in ending),
      _read_when(f'{link}.schedule', *ending),
    ),
    'every_steps': Field(
      100, STEPS, 'steps between two mask updates', _read_when(f'{link}.schedule', *repeated)
    ),
    'round_fraction': Field(
      0.2,
      Number(0.0, 1.0, above=True, below=True),
      'the share of the remaining weights that each round removes',
      _read_when(f'{link}.schedule', 'iterative'),
    ),
  }


def _how_many(link: str, allocation: str) -> dict[str, Field]:
  """The settings of how many weights a link leaves in each layer, with the default allocation."""
  return {
    'density': Field(
      0.02,
      ByLayer(SHARE),
      'the share of the pruned parameters that stays; by_layer: PATTERN=SHARE,PATTERN=SHARE, of '
      'which the first pattern found in a path counts',
      Read(
        f"a {link}.allocation other than 'absolute_threshold' and a {link}.granularity other than "
        "'n_m'",
        lambda config: (
          config[link]['allocation'] != 'absolute_threshold'
          and config[link]['granularity'] != 'n_m'
        ),
      ),
    ),
    'threshold': Field(
      0.02,
      SHARE,
      'weights with this score or less are removed',
      _read_when(f'{link}.allocation', 'absolute_threshold'),
    ),
    'density_of': Field(
      'groups',
      Choice(DENSITY_UNITS),
      'what the density is a share of; weights, macs: those of the whole network',
    ),
    'allocation': Field(
      allocation,
      Choice(ALLOCATIONS, own='allocation'),
      'how the remaining weights are distributed over the layers; by_layer: as the density says',
    ),
  }


def _which(link: str, parameters: str) -> dict[str, Field]:
  """The settings of which weights a link removes, of which parameters by default."""
  of_n_m = _read_when(f'{link}.granularity', 'n_m')
  return {
    'criterion': Field(
      'magnitude',
      Choice(('magnitude', 'saliency', 'fisher', 'lamp', 'random'), own='criterion'),
      'the score by which the largest are kept',
    ),
    'granularity': Field(
      'weight',
      Choice(('weight', *GROUPED, 'n_m'), own='granularity'),
      'the unit that is kept or removed as a whole',
    ),
    'block': Field(
      (4, 4), Sides(), 'inputs x outputs', _read_when(f'{link}.granularity', 'blocks')
    ),
    'n': Field(2, Integer(1), 'how many of every m consecutive inputs stay', of_n_m),
    'm': Field(4, Integer(2), 'consecutive inputs among which n stay', of_n_m),
    'in_multiples': Field(
      1,
      Integer(1),
      'each layer keeps a multiple of this number of groups, at least one; 1: any number',
      _read_when(f'{link}.granularity', *GROUPED),
    ),
    'parameters': Field(
      parameters, _PARAMETERS, 'which parameters are pruned; kernels: biases and BatchNorm stay'
    ),
    'exclude': _EXCLUDE,
    'floor': Field(1, Integer(0), 'the least number of weights (groups) that a layer keeps'),
    'inner': _INSIDE,
  }


# What `prune` has besides: the rule by which its masks change.
_OF_RULES: dict[str, Field] = {
  'update_rule': Field(
    'nested',
    Choice(('nested', 'set', 'rigl'), own='update_rule'),
    'nested: masks only shrink; set, rigl: weights are exchanged',
  ),
  'drop_fraction': Field(
    0.3,
    SHARE,
    "the share of a layer's active weights that is exchanged; rigl: it falls to 0 at the end",
    _EXCHANGED,
  ),
  'start': Field(
    'random', Choice(('random', 'criterion')), 'the first mask of set and rigl', _EXCHANGED
  ),
}
_UNTIL = Read(
  "the prune.schedule 'cubic' or 'periodic', or the prune.update_rule 'rigl'",
  lambda config: (
    config['prune']['schedule'] in ('cubic', 'periodic') or config['prune']['update_rule'] == 'rigl'
  ),
)


# Where a default differs from the library's, and why.
_UNLIKE_THE_LIBRARY = {
  'allocation': "the library's default is global_rank, but the research log cut at |p| <= 0.02",
  'parameters': "the library's default is kernels, but the research log cut all parameters",
}


def _of_prune() -> dict[str, Field]:
  block = _when('prune') | _how_many('prune', 'absolute_threshold') | _which('prune', 'all')
  block['end_epochs'] = block['end_epochs']._replace(read=_UNTIL)
  for key, why in _UNLIKE_THE_LIBRARY.items():
    block[key] = block[key]._replace(meaning=f'{block[key].meaning}; {why}')
  return block | _OF_RULES


def _of_straight_through() -> dict[str, Field]:
  link = 'straight_through'
  block = _when(link) | _how_many(link, 'global_rank') | _which(link, 'kernels')
  return block | {
    'renew_every_steps': Field(1, STEPS, 'steps between two new masks at one density'),
  }


# The settings of each link that `chain` may name. Other Optax links may be named too; their
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
    'decay': Field(0.9, Scheduled(DECAY), 'heavy-ball momentum'),
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
      'kernels', _PARAMETERS, 'which parameters shrink; all: biases and BatchNorm too'
    ),
    'exclude': _EXCLUDE,
    'inner': Field((), Names(), _INNER),
  },
  'proximal_group_l1': {
    'strength': Field(1e-5, Scheduled(NOT_NEGATIVE), 'the loss gains strength * sum_g w_g ||p_g||'),
    'granularity': Field('filters', Choice(GROUPED), 'what a group is'),
    'block': Field(
      (4, 4), Sides(), 'inputs x outputs', _read_when('proximal_group_l1.granularity', 'blocks')
    ),
    'group_weight': Field(
      'sqrt_size',
      Choice(('sqrt_size', 'one')),
      "w_g: the root of the group's number of weights, or one",
    ),
    'parameters': Field('kernels', _PARAMETERS, 'which parameters shrink'),
    'exclude': _EXCLUDE,
    'inner': Field((), Names(), _INNER),
  },
  'prune': _of_prune(),
  'straight_through': _of_straight_through(),
  'hold': {
    'parameters': Field('kernels', _PARAMETERS, 'whose zeros are held; all: biases too'),
    'exclude': _EXCLUDE,
    'inner': _INSIDE,
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
    'to_epochs': Field(5.0, NOT_NEGATIVE, 'the time whose weights return at every cut of `prune`'),
  },
}

_LOG_VARIANCE = Number(-80.0, 80.0)  # `posterior.kl` is finite there
_KERNEL_STD = Field(
  None, Optional(NOT_NEGATIVE), "the initial deviation of the means; None: the network's own rule"
)


def _own(name: str, settings: Mapping[str, Any]) -> dict[str, Field]:
  """The fields of a user's own part, from its settings and their defaults."""
  kinds = {bool: Flag(), int: Integer(), float: Number(), str: Text()}
  for key, value in settings.items():
    if type(value) not in kinds:
      raise ValueError(f"its setting '{key}' is {value!r}: it must be a number, a text or a flag")
  return {k: Field(v, kinds[type(v)], f'a setting of {name}') for k, v in settings.items()}


# The arguments that `nn.variational.makers` takes for any family.
MAKER_ARGUMENTS = ('family', 'training_mask', 'dense_groups', 'conv_groups')


def _layer_fields(name: str, family: Family) -> dict[str, Field]:
  """The fields of layers with posteriors of one family."""
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
  return block | _own(name, family.settings)


# The settings of each family of layers with posteriors.
LAYERS = {name: _layer_fields(name, family) for name, family in FAMILIES.items()}
EVENTS: dict[str, dict[str, Field]] = {
  'lobs': {
    'at_epochs': Field(
      60.0, NOT_NEGATIVE, 'when it happens; `prune` must begin then, to hold the zeros'
    ),
    'batches': Field(
      50,
      Integer(1),
      'batches of unaugmented training examples from which the layers are solved',
      _read_when('lobs.method', 'lobs'),
    ),
    'density': Field(0.07, FRACTION, 'active fraction of the chosen kernels'),
    'allocation': Field(
      'global_rank',
      Choice(('global_rank', 'uniform', 'erk')),
      'how many weights stay in each layer, by magnitudes',
    ),
    'exclude': _EXCLUDE,
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

_LARGEST = 2**31 - 1  # the largest number of a step
_VARIATIONAL = Read('layers with posteriors', lambda config: config['layers'] != DETERMINISTIC)
_SPLIT = Read("a data.name other than 'digits'", lambda config: config['data']['name'] != 'digits')
_SHUFFLED = Read(
  "the data.split 'shuffle' of a data.name other than 'digits'",
  lambda config: config['data']['name'] != 'digits' and config['data']['split'] == 'shuffle',
)
_EXAMPLES = Optional(Integer(1))
# The fields that every experiment has, in their blocks.
FIELDS: dict[str, Field | dict[str, Field]] = {
  'name': Field('', Name(), "set from the config's file name; enters no hash"),
  'method': Field('dense', Text(), 'what tables call this way of training; enters no hash'),
  'seed': Field(
    0, Integer(0, 2**32 - 1), 'the seed of initial weights, order of examples, everything random'
  ),
  'epochs': Field(180.0, Number(0.0, above=True), 'length of the run in training epochs'),
  'batch_size': Field(128, Integer(1), 'examples per step, over all devices together'),
  'chain': Field(SGD, Names(), 'links in the order in which updates pass through them'),
  'events': Field((), Names(), 'events that happen between steps'),
  'layers': Field(
    DETERMINISTIC,
    Choice((DETERMINISTIC, *LAYERS), own='posterior'),
    'the layers that networks are built from',
  ),
  'init_from': Field(
    None, Optional(Text()), 'run directory with the network that training starts from'
  ),
  'model': {
    'name': Field('lenet300', Text(), 'the network'),
    'width': Field(None, Optional(Integer(1, 2**16)), "planes of the stem; None: the paper's"),
    'widths': Field({}, Table(Integer(1, 2**16)), 'features of single layers, by path'),
    'dropout': Field(0.0, DECAY, 'rate in the dense network; it falls as weights are removed'),
    'dtype': Field(
      'float32', Choice(('float32', 'bfloat16')), 'type of the computation, not the parameters'
    ),
    'sync_batch_norm': Field(False, Flag(), 'moments over all devices, not over each alone'),
  },
  'data': {
    'name': Field('digits', Text(), 'digits, mnist, fashion_mnist, cifar10, cifar100 or npz:PATH'),
    'dir': Field(
      None, Optional(Text()), "tensorflow-datasets' folder; None: its default; enters no hash"
    ),
    'split': Field(
      'shuffle',
      Choice(('shuffle', 'first')),
      'shuffle: at random; first: the first examples train, the last ones validate',
      _SPLIT,
    ),
    'split_seed': Field(
      0, Integer(0, _LARGEST), "the seed of the shuffle, apart from the run's seed", _SHUFFLED
    ),
    'validation': Field(None, _EXAMPLES, "validation examples; None: the data set's default"),
    'limit': Field(None, _EXAMPLES, 'training examples used; None: all'),
    'crop_padding': Field(0, Integer(0), 'pixels of zero padding before the random crop'),
    'flip': Field(False, Flag(), 'horizontal flips at random'),
    'cutout': Field(
      0, Integer(0), 'side in pixels of a random square set to the mean; 0: no square'
    ),
    'scale': Field(
      'standardised',
      Choice(('standardised', 'symmetric', 'centred')),
      'standardised: by channel; symmetric: 2 x - 1; centred: x - mean image',
    ),
  },
  'loss': {
    'label_smoothing': Field(
      0.0, DECAY, 'share of each label spread over all classes; training only'
    ),
  },
  'evaluation': {
    'every_epochs': Field(1.0, POSITIVE, 'time between two evaluations on the validation split'),
    'choose_by': Field(
      'loss', Choice(('loss', 'accuracy')), 'the validation figure that chooses the network'
    ),
    'batch_size': Field(
      500, Integer(1, 2**16), 'examples over all devices together; the last batch is padded'
    ),
    'batch_norm_batches': Field(
      50,
      Integer(1),
      "batches of unaugmented training examples for a deployed network's BatchNorm averages",
      _VARIATIONAL,
    ),
  },
  'log': {
    'every_steps': Field(50, STEPS, 'steps between two lines of metrics'),
    'checkpoint_every_epochs': Field(1.0, POSITIVE, 'time between two checkpoints'),
    'keep_checkpoints': Field(2, Integer(1), 'checkpoints to keep; a second one guards the first'),
    'tensorboard': Field(False, Flag(), 'whether to write event files beside metrics.jsonl'),
  },
}
BLOCKS = LINKS | EVENTS | LAYERS  # the blocks that a chain, events and layers need


def add_event(name: str, settings: Mapping[str, Any]) -> None:
  """Makes a user's own event known, with its settings and their defaults."""
  _add(EVENTS, name, {'at_epochs': Field(60.0, NOT_NEGATIVE, 'when')} | _own(name, settings))


def add_layers(name: str, family: Family) -> None:
  """Makes layers with a user's own family of posteriors known."""
  _add(LAYERS, name, _layer_fields(name, family))


def _add(blocks: dict[str, dict[str, Field]], name: str, block: dict[str, Field]) -> None:
  if name in {*FIELDS, *BLOCKS, DETERMINISTIC} - {*blocks}:
    raise ValueError('a config has something else of that name: give it another name')
  for key, field in block.items():
    try:
      field.kind.convert(field.default)
    except WrongError as error:
      raise ValueError(f'its {key} is {field.default!r}: it must be {error}') from None
  blocks[name] = BLOCKS[name] = block


def strip_unit(name: str) -> str:
  """Returns a duration's name without its unit, or another setting's name as it is.

  Example:
    >>> strip_unit('begin_epochs'), strip_unit('batch_size')
    ('begin', 'batch_size')
  """
  base, _, unit = name.rpartition('_')
  return base if base and unit in UNITS else name


def find(block: Mapping[str, Field], name: str) -> Field | None:
  """Returns a block's field by its name; a duration is found in any unit."""
  if name in block:
    return block[name]
  if (base := strip_unit(name)) == name:
    return None
  return next((field for key, field in block.items() if key != strip_unit(key) == base), None)


def values(block: Mapping[str, Field]) -> dict[str, Any]:
  """Returns the defaults of a block."""
  return {name: field.default for name, field in block.items()}
