"""Settings that a run never reads because of another one: to vary such a setting varies nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from sparsejax.experiment.durations import UNITS

# By field, a duration's without its unit: when it is read, in words and of a config.
_EXCHANGED = "the prune.update_rule 'set' or 'rigl'"
READ: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
  'prune.every': (
    "the prune.schedule 'cubic', 'periodic' or 'rounds'",
    lambda config: config['prune']['schedule'] != 'one_shot',
  ),
  'prune.end': (
    "the prune.schedule 'cubic' or 'periodic', or the prune.update_rule 'rigl'",
    lambda config: (
      config['prune']['schedule'] in ('cubic', 'periodic')
      or config['prune']['update_rule'] == 'rigl'
    ),
  ),
  'prune.round_share': (
    "the prune.schedule 'rounds'",
    lambda config: config['prune']['schedule'] == 'rounds',
  ),
  'prune.block': (
    "the prune.granularity 'blocks'",
    lambda config: config['prune']['granularity'] == 'blocks',
  ),
  'prune.m': (
    "the prune.granularity 'n_of_m'",
    lambda config: config['prune']['granularity'] == 'n_of_m',
  ),
  'prune.exchange_share': (
    _EXCHANGED,
    lambda config: config['prune']['update_rule'] != 'nested',
  ),
  'prune.start': (_EXCHANGED, lambda config: config['prune']['update_rule'] != 'nested'),
  'proximal_group_l1.block': (
    "the proximal_group_l1.granularity 'blocks'",
    lambda config: config['proximal_group_l1']['granularity'] == 'blocks',
  ),
  'lobs.batches': ("the lobs.method 'lobs'", lambda config: config['lobs']['method'] == 'lobs'),
  'data.split': (
    "a data.name other than 'digits'",
    lambda config: config['data']['name'] != 'digits',
  ),
  'data.split_seed': (
    "the data.split 'shuffle' of a data.name other than 'digits'",
    lambda config: config['data']['name'] != 'digits' and config['data']['split'] == 'shuffle',
  ),
  'evaluation.batch_norm_batches': (
    'layers with posteriors',
    lambda config: config['layers'] != 'deterministic',
  ),
}


def read_only_with(config: Mapping[str, Any], field: str) -> str:
  """Returns what a field would be read with, where the config is without it; else ''.

  Args:
    config: the resolved settings.
    field: dotted.

  Example:
    >>> read_only_with({'prune': {'schedule': 'one_shot'}}, 'prune.every_steps')
    "the prune.schedule 'cubic', 'periodic' or 'rounds'"
    >>> read_only_with({'prune': {'schedule': 'cubic'}}, 'prune.every_steps')
    ''
  """
  name, _, unit = field.rpartition('_')
  needed, is_read = READ.get(name if unit in UNITS else field, ('', None))
  return '' if is_read is None or is_read(config) else needed
