"""Every field of an experiment: its default, what it may be, what it means, and when it is read.

A duration carries its unit in its name: `_epochs` of the training split, `_steps`, or `_examples`,
and may be given in another one. Where a number may stand a schedule's block may stand too, where it
says so: dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.config.kinds import (
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
    words: what it is read with.
    when: of the resolved settings, whether it is.
  """

  words: str
  when: Callable[[Mapping[str, Any]], bool]


class Field(NamedTuple):
  """One setting.

  Attributes:
    default: its value where nothing else is said.
    kind: what it may be.
    meaning: of it.
    read: when it is read; None where it always is.
  """

  default: Any
  kind: Kind
  meaning: str
  read: Read | None = None


def _with(field: str, *values: Any) -> Read:
  """Read where another field has one of these values."""
  block, _, name = field.partition('.')
  *first, last = map(repr, values)
  words = f'{", ".join(first)} or {last}' if first else last
  return Read(f'the {field} {words}', lambda config: config[block][name] in values)


UNITS = ('epochs', 'steps', 'examples')
SGD = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
NOT_NEGATIVE, POSITIVE = Number(0.0), Number(0.0, above=True)
SHARE, FRACTION = Number(0.0, 1.0), Number(0.0, 1.0, above=True)
DECAY = Number(0.0, 1.0, below=True)  # of a running mean
STEPS = Period()

_SCHEDULE = ('one_shot', 'cubic', 'periodic', 'iterative')
_PARAMETERS = Choice(('kernels', 'all'))
_EXCLUDE = Field((), Patterns(), "parameter paths to leave out, such as ('^classifier/',)")
_INNER = "an optimizer with second moments and its learning rate, such as ('adam',)"
_OF_N_M = _with('prune.granularity', 'n_m')
_EXCHANGED = Read(
  "the prune.update_rule 'set' or 'rigl'",
  lambda config: config['prune']['update_rule'] in ('set', 'rigl'),
)

# The settings of each link that `chain` may name. Other links of Optax may be named too; their
# settings are their own arguments.
LINKS: dict[str, dict[str, Field]] = {
  'add_decayed_weights': {
    'weight_decay': Field(
      5e-4, Scheduled(NOT_NEGATIVE), 'L2: added to the gradient as weight_decay * parameter'
    ),
  },
  'trace': {
    'decay': Field(0.9, Scheduled(DECAY), 'heavy-ball momentum'),
    'nesterov': Field(False, Flag(), "Nesterov's form of it"),
  },
  'scale_by_adam': {
    'b1': Field(0.9, Scheduled(DECAY), 'decay of the mean of gradients'),
    'b2': Field(0.999, Scheduled(DECAY), 'decay of the mean of their squares'),
    'eps': Field(1e-8, Scheduled(NOT_NEGATIVE), 'added to the root of the latter'),
  },
  'scale_by_learning_rate': {
    'learning_rate': Field(0.1, Scheduled(NOT_NEGATIVE), 'the learning rate'),
  },
  'proximal_l1': {
    'strength': Field(1e-5, Scheduled(NOT_NEGATIVE), 'of the penalty strength * sum |p|, in loss'),
    'parameters': Field('kernels', _PARAMETERS, 'what is shrunk; all: biases and BatchNorm too'),
    'exclude': _EXCLUDE,
    'inner': Field((), Names(), _INNER),
  },
  'proximal_group_l1': {
    'strength': Field(
      1e-5, Scheduled(NOT_NEGATIVE), 'of the penalty strength * sum_g w_g ||p_g||, in loss'
    ),
    'granularity': Field(
      'filters', Choice(('filters', 'input_channels', 'blocks')), 'what a group is'
    ),
    'block': Field(
      (4, 4), Sides(), 'inputs x outputs', _with('proximal_group_l1.granularity', 'blocks')
    ),
    'group_weight': Field(
      'sqrt_size',
      Choice(('sqrt_size', 'one')),
      "w_g: the root of the group's number of weights, or one",
    ),
    'parameters': Field('kernels', _PARAMETERS, 'what is shrunk'),
    'exclude': _EXCLUDE,
    'inner': Field((), Names(), _INNER),
  },
  'prune': {
    'schedule': Field(
      'one_shot',
      Choice(_SCHEDULE),
      'one cut; cubic: gradually; periodic: at one density; iterative: round by round',
    ),
    'begin_epochs': Field(
      60.0, NOT_NEGATIVE, 'one_shot: when; iterative: the first round; else where it starts'
    ),
    'end_epochs': Field(
      120.0,
      NOT_NEGATIVE,
      'cubic: where the density is reached; periodic: where renewals end',
      Read(
        "the prune.schedule 'cubic' or 'periodic', or the prune.update_rule 'rigl'",
        lambda config: (
          config['prune']['schedule'] in ('cubic', 'periodic')
          or config['prune']['update_rule'] == 'rigl'
        ),
      ),
    ),
    'every_steps': Field(
      100,
      STEPS,
      'between two renewals of the masks',
      _with('prune.schedule', 'cubic', 'periodic', 'iterative'),
    ),
    'round_fraction': Field(
      0.2,
      Number(0.0, 1.0, above=True, below=True),
      'of what is left, what each round removes',
      _with('prune.schedule', 'iterative'),
    ),
    'density': Field(
      0.02,
      SHARE,
      'of what is pruned, what stays',
      Read(
        "a prune.allocation other than 'absolute_threshold' and a prune.granularity other than "
        "'n_m'",
        lambda config: (
          config['prune']['allocation'] != 'absolute_threshold'
          and config['prune']['granularity'] != 'n_m'
        ),
      ),
    ),
    'threshold': Field(
      0.02,
      SHARE,
      'what scores no more than this goes',
      _with('prune.allocation', 'absolute_threshold'),
    ),
    'density_of': Field(
      'groups',
      Choice(('groups', 'weights', 'macs')),
      'what the density is a share of: weights and macs are of the whole network',
    ),
    'allocation': Field(
      'absolute_threshold',
      Choice(('absolute_threshold', 'global_rank', 'uniform', 'erk'), own='allocation'),
      'how what stays is shared among the layers',
    ),
    'criterion': Field(
      'magnitude',
      Choice(('magnitude', 'saliency', 'fisher', 'lamp', 'random'), own='criterion'),
      'what is kept: the largest by it',
    ),
    'granularity': Field(
      'weight',
      Choice(('weight', 'filters', 'input_channels', 'blocks', 'n_m'), own='granularity'),
      'what is kept or removed as one',
    ),
    'block': Field((4, 4), Sides(), 'inputs x outputs', _with('prune.granularity', 'blocks')),
    'n': Field(2, Integer(1), 'of every m consecutive inputs, how many stay', _OF_N_M),
    'm': Field(4, Integer(2), 'consecutive inputs, of which n stay', _OF_N_M),
    'update_rule': Field(
      'nested',
      Choice(('nested', 'set', 'rigl'), own='update_rule'),
      'nested: masks only shrink; set, rigl: weights are exchanged',
    ),
    'drop_fraction': Field(
      0.3,
      SHARE,
      "of a layer's active weights, what is exchanged; rigl's falls to 0 at the end",
      _EXCHANGED,
    ),
    'start': Field(
      'random', Choice(('random', 'criterion')), 'the first mask of set and rigl', _EXCHANGED
    ),
    'parameters': Field('all', _PARAMETERS, 'what is pruned; kernels: biases and BatchNorm stay'),
    'exclude': _EXCLUDE,
    'floor': Field(1, Integer(0), 'weights (groups) that every layer keeps at least'),
    'inner': Field((), Names(), 'links that run inside the masks instead of before them'),
  },
  'hold': {
    'parameters': Field('kernels', _PARAMETERS, 'whose zeros are held; all: biases too'),
    'exclude': _EXCLUDE,
    'inner': Field((), Names(), 'links that run inside the masks instead of before them'),
  },
  'add_kl_gradients': {
    'weight': Field(
      1.0, Scheduled(NOT_NEGATIVE), 'of the KL, over the number of training examples'
    ),
  },
  'bound_variances': {
    'maximum': Field(0.04, POSITIVE, 'the largest posterior variance'),
    'where': Field('', Pattern(), "parameter paths, such as '^fc1/'; none: everywhere"),
  },
  'rewind': {
    'to_epochs': Field(
      5.0, NOT_NEGATIVE, 'where the weights come from that return at every cut of `prune`'
    ),
  },
}

_LOG_VARIANCE = Number(-80.0, 80.0)  # `posterior.kl` is finite there
_KERNEL_STD = Field(None, Optional(NOT_NEGATIVE), "of the first means; None: the network's own")


def _own(name: str, settings: Mapping[str, Any]) -> dict[str, Field]:
  """The fields of a part of a person's own, from its settings and their defaults."""
  kinds = {bool: Flag(), int: Integer(), float: Number(), str: Text()}
  for key, value in settings.items():
    if type(value) not in kinds:
      raise ValueError(f"its setting '{key}' is {value!r}: it must be a number, a text or a flag")
  return {k: Field(v, kinds[type(v)], f'a setting of {name}') for k, v in settings.items()}


# What `layers.variational.makers` takes for itself, of whatever family.
OF_MAKERS = ('family', 'training_mask', 'dense_groups', 'conv_groups')


def _of_layers(name: str, family: Family) -> dict[str, Field]:
  """The settings of layers with posteriors of one family."""
  bound = family.bound
  inside = Number() if bound is None else Number(-bound, bound, above=True, below=True)
  block = {
    'threshold': Field(
      family.threshold, inside, 'of log alpha: weights or groups of so much noise or more go'
    ),
    'thresholds': Field({}, Table(inside), 'by layer, where it is not `threshold`'),
    'kernel_std': _KERNEL_STD,
    'log_variance': Field(family.log_variance, _LOG_VARIANCE, 'of all posteriors, initially'),
  }
  if family.masks:
    meaning = 'means beyond the threshold count as 0 already in training'
    block['training_mask'] = Field(True, Flag(), meaning)
  if family.has_groups:
    sides = Choice(('inputs', 'outputs'))
    block['dense_groups'] = Field('inputs', sides, 'of a dense layer: what is a group')
    block['conv_groups'] = Field('outputs', sides, 'of a convolution: what is a group')
  if taken := [key for key in family.settings if key in block or key in OF_MAKERS]:
    raise ValueError(f"its setting '{taken[0]}' must have another name: layers have that one")
  return block | _own(name, family.settings)


# The settings of each family of layers with posteriors.
LAYERS = {name: _of_layers(name, family) for name, family in FAMILIES.items()}
EVENTS: dict[str, dict[str, Field]] = {
  'lobs': {
    'at_epochs': Field(60.0, NOT_NEGATIVE, 'when; `prune` begins there and holds the zeros'),
    'batches': Field(
      50,
      Integer(1),
      'of training examples, unaugmented, that the layers are solved over',
      _with('lobs.method', 'lobs'),
    ),
    'density': Field(0.07, FRACTION, 'active fraction of the chosen kernels'),
    'allocation': Field(
      'global_rank',
      Choice(('global_rank', 'uniform', 'erk')),
      'of magnitudes, how many stay in each layer',
    ),
    'exclude': _EXCLUDE,
    'method': Field(
      'lobs', Choice(('lobs', 'magnitude')), 'magnitude zeroes the smallest and moves nothing'
    ),
  },
  'recalibrate_batch_norm': {
    'at_epochs': Field(
      61.0, NOT_NEGATIVE, 'when; at the very epoch of a cut the network is still dense'
    ),
    'batches': Field(
      50, Integer(1), 'of training examples, unaugmented, over which moments are averaged'
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

_LARGEST = 2**31 - 1  # what a step counts in
_VARIATIONAL = Read('layers with posteriors', lambda config: config['layers'] != DETERMINISTIC)
_SPLIT = Read("a data.name other than 'digits'", lambda config: config['data']['name'] != 'digits')
_SHUFFLED = Read(
  "the data.split 'shuffle' of a data.name other than 'digits'",
  lambda config: config['data']['name'] != 'digits' and config['data']['split'] == 'shuffle',
)
_EXAMPLES = Optional(Integer(1))
# The fields that every experiment has, in the blocks that they are in.
FIELDS: dict[str, Field | dict[str, Field]] = {
  'name': Field('', Name(), "set from the config's file name; enters no hash"),
  'method': Field('dense', Text(), 'what tables call this way of training; enters no hash'),
  'seed': Field(
    0, Integer(0, 2**32 - 1), 'of the initial weights, the order of examples, all that is random'
  ),
  'epochs': Field(180.0, Number(0.0, above=True), 'length of the run, of the training split'),
  'batch_size': Field(128, Integer(1), 'examples a step, over all devices together'),
  'chain': Field(SGD, Names(), 'links in the order in which updates pass them'),
  'events': Field((), Names(), 'what happens between steps'),
  'layers': Field(
    DETERMINISTIC,
    Choice((DETERMINISTIC, *LAYERS), own='posterior'),
    'of what networks are built',
  ),
  'init_from': Field(
    None, Optional(Text()), 'run directory whose best network training starts from'
  ),
  'model': {
    'name': Field('lenet300', Text(), 'the network'),
    'width': Field(None, Optional(Integer(1, 2**16)), "planes of the stem; None: the paper's"),
    'dropout': Field(0.0, DECAY, 'rate where the dense network starts; falls as weights go'),
    'dtype': Field(
      'float32', Choice(('float32', 'bfloat16')), 'of the computation; parameters are float32'
    ),
    'sync_batch_norm': Field(False, Flag(), 'moments over all devices, not over each for itself'),
  },
  'data': {
    'name': Field('digits', Text(), 'or mnist, fashion_mnist, cifar10, cifar100, npz:PATH'),
    'dir': Field(
      None, Optional(Text()), 'of tensorflow-datasets; None: its own default; in no hash'
    ),
    'split': Field(
      'shuffle',
      Choice(('shuffle', 'first')),
      'first: the first examples train, the last validate',
      _SPLIT,
    ),
    'split_seed': Field(
      0, Integer(0, _LARGEST), "of the shuffle, the same for every run's seed", _SHUFFLED
    ),
    'validation': Field(None, _EXAMPLES, "examples; None: the data set's default"),
    'limit': Field(None, _EXAMPLES, 'training examples used; None: all'),
    'crop_padding': Field(0, Integer(0), 'pixels of zero padding before the random crop'),
    'flip': Field(False, Flag(), 'horizontally, at random'),
    'cutout': Field(
      0, Integer(0), 'side in pixels of a square set to the mean, at random; 0 cuts nothing'
    ),
    'scale': Field(
      'standardised',
      Choice(('standardised', 'symmetric', 'centred')),
      'by channel; symmetric: 2 x - 1; centred: x - mean image',
    ),
  },
  'loss': {
    'label_smoothing': Field(
      0.0, DECAY, 'share of each label spread over all classes; training only'
    ),
  },
  'evaluation': {
    'every_epochs': Field(1.0, POSITIVE, 'between two evaluations on the validation split'),
    'choose_by': Field(
      'loss', Choice(('loss', 'accuracy')), 'what is best on the validation split'
    ),
    'batch_size': Field(
      500, Integer(1, 2**16), 'examples, over all devices together; the last batch is filled up'
    ),
    'batch_norm_batches': Field(
      50,
      Integer(1),
      "of training examples, unaugmented, for BatchNorm's averages of a deployed network",
      _VARIATIONAL,
    ),
  },
  'log': {
    'every_steps': Field(50, STEPS, 'between two lines of metrics'),
    'checkpoint_every_epochs': Field(1.0, POSITIVE, 'between two checkpoints'),
    'keep_checkpoints': Field(2, Integer(1), 'the latest so many; more than one for damage'),
    'tensorboard': Field(False, Flag(), 'event files beside metrics.jsonl'),
  },
}
BLOCKS = LINKS | EVENTS | LAYERS  # that a chain, events and layers bring along


def add_event(name: str, settings: Mapping[str, Any]) -> None:
  """Makes an event of a person's own known, with its settings and their defaults."""
  _add(EVENTS, name, {'at_epochs': Field(60.0, NOT_NEGATIVE, 'when')} | _own(name, settings))


def add_layers(name: str, family: Family) -> None:
  """Makes layers with a family of posteriors of a person's own known."""
  _add(LAYERS, name, _of_layers(name, family))


def _add(blocks: dict[str, dict[str, Field]], name: str, block: dict[str, Field]) -> None:
  if name in {*FIELDS, *BLOCKS, DETERMINISTIC} - {*blocks}:
    raise ValueError('a config has something else of that name: another one is needed')
  for key, field in block.items():
    try:
      field.kind.take(field.default)
    except WrongError as error:
      raise ValueError(f'its {key} is {field.default!r}: it must be {error}') from None
  blocks[name] = BLOCKS[name] = block


def base_of(name: str) -> str:
  """Returns a duration's name without its unit, another setting's as it is.

  Example:
    >>> base_of('begin_epochs'), base_of('batch_size')
    ('begin', 'batch_size')
  """
  base, _, unit = name.rpartition('_')
  return base if base and unit in UNITS else name


def find(block: Mapping[str, Field], name: str) -> Field | None:
  """Returns a block's field by its name; a duration's in any unit."""
  if name in block:
    return block[name]
  if (base := base_of(name)) == name:
    return None
  return next((field for key, field in block.items() if key != base_of(key) == base), None)


def values(block: Mapping[str, Field]) -> dict[str, Any]:
  """Returns the defaults of a block."""
  return {name: field.default for name, field in block.items()}
