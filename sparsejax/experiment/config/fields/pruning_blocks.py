"""The settings of the links that remove weights by a schedule: when, how many, and which."""

from sparsejax.experiment.config.fields.field import (
  NOT_NEGATIVE,
  SHARE,
  STEPS,
  Field,
  Read,
  read_when,
)
from sparsejax.experiment.config.setting_kinds import (
  ByLayer,
  Choice,
  Integer,
  Names,
  Number,
  Patterns,
  Sides,
)

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
  'straight_through': ('one_shot', 'cubic', 'iterative'),  # it has no 'periodic'
}
ALLOCATIONS = ('absolute_threshold', 'global_rank', 'uniform', 'erk', 'by_layer')
GROUPED = ('filters', 'input_channels', 'blocks')  # granularities of whole groups
PARAMETERS = Choice(('kernels', 'all'))
EXCLUDE = Field((), Patterns(), "parameter paths to leave out, such as ('^classifier/',)")
INSIDE = Field((), Names(), 'links that run inside the masks instead of before them')
_EXCHANGED = read_when('prune.update_rule', 'set', 'rigl')


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
      'when the schedule begins, with its first cut; cubic makes its first cut every_steps later',
    ),
    'end_epochs': Field(
      120.0,
      NOT_NEGATIVE,
      '; '.join(f'{schedule}: {_OF_ENDS[schedule]}' for schedule in ending),
      read_when(f'{link}.schedule', *ending),
    ),
    'every_steps': Field(
      100, STEPS, 'steps between two mask updates', read_when(f'{link}.schedule', *repeated)
    ),
    'round_fraction': Field(
      0.2,
      Number(0.0, 1.0, above=True, below=True),
      'the share of the remaining weights that each round removes',
      read_when(f'{link}.schedule', 'iterative'),
    ),
  }


def _how_many(link: str, allocation: str) -> dict[str, Field]:
  """The settings of how many weights a link leaves in each layer, with the default allocation."""
  return {
    'density': Field(
      0.02,
      ByLayer(SHARE),
      'the share of the prunable weights that is kept; by_layer: PATTERN=SHARE,PATTERN=SHARE; '
      'the first pattern found in a path counts',
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
      read_when(f'{link}.allocation', 'absolute_threshold'),
    ),
    'density_of': Field(
      'groups',
      Choice(DENSITY_UNITS),
      'what the density is a share of; groups: the prunable ones, which are single weights '
      'unless the granularity says otherwise; weights, macs: those of the whole network',
    ),
    'allocation': Field(
      allocation,
      Choice(ALLOCATIONS, own='allocation'),
      'how the remaining weights are distributed over the layers; by_layer: as the density says',
    ),
  }


def _which(link: str, parameters: str) -> dict[str, Field]:
  """The settings of which weights a link removes, of which parameters by default."""
  of_n_m = read_when(f'{link}.granularity', 'n_m')
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
    'block': Field((4, 4), Sides(), 'inputs x outputs', read_when(f'{link}.granularity', 'blocks')),
    'n': Field(2, Integer(1), 'how many of every m consecutive inputs stay', of_n_m),
    'm': Field(4, Integer(2), 'consecutive inputs among which n stay', of_n_m),
    'in_multiples': Field(
      1,
      Integer(1),
      'each layer keeps a multiple of this number of groups, at least one; 1: any number',
      read_when(f'{link}.granularity', *GROUPED),
    ),
    'parameters': Field(
      parameters, PARAMETERS, 'which parameters are pruned; kernels: biases and BatchNorm stay'
    ),
    'exclude': EXCLUDE,
    'floor': Field(1, Integer(0), 'the least number of weights (groups) that a layer keeps'),
    'inner': INSIDE,
  }


# What only `prune` has: the rule by which its masks change.
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


def of_prune() -> dict[str, Field]:
  """Returns the settings of `prune`."""
  block = _when('prune') | _how_many('prune', 'absolute_threshold') | _which('prune', 'all')
  block['end_epochs'] = block['end_epochs']._replace(read=_UNTIL)
  for key, why in _UNLIKE_THE_LIBRARY.items():
    block[key] = block[key]._replace(meaning=f'{block[key].meaning}; {why}')
  return block | _OF_RULES


def of_straight_through() -> dict[str, Field]:
  """Returns the settings of `straight_through`."""
  link = 'straight_through'
  block = _when(link) | _how_many(link, 'global_rank') | _which(link, 'kernels')
  return block | {
    'renew_every_steps': Field(1, STEPS, 'steps between two mask updates at one density'),
  }
