"""Checks of a run's files for a report: that types are right and figures are possible."""

from collections.abc import Callable, Mapping
from typing import Any

from sparsejax.experiment.chain.pruning_links import PRUNING_LINKS
from sparsejax.experiment.config.identity import get_by_path
from sparsejax.experiment.config.setting_kinds import is_number

# Everything is measured in single precision, so no axis and no table needs larger numbers.
LEAST, MOST = 1e-45, 3.5e38
NEEDED = ('epochs', 'validation_accuracy', 'active_fraction', 'active_weights', 'weights')
# These are null if they are not finite.
MAY_BE_NULL = (
  *('compression', 'theoretical_speedup', 'compression_with_bits', 'seconds'),
  *('train_accuracy', 'train_loss', 'validation_loss', 'test_loss'),
  *('parameters', 'active_parameters', 'macs', 'active_macs'),
)
SHARES = ('validation_accuracy', 'test_accuracy', 'train_accuracy', 'active_fraction')
LOSSES = ('train_loss', 'validation_loss', 'test_loss')
BINS = ('from', 'to', 'threshold')  # the fields of a histogram of log alpha


def is_figure(value: Any) -> bool:
  """Returns whether a value is a number that float32 can hold: finite and not vanishingly small.

  Example:
    >>> is_figure(0.5), is_figure(1e-320), is_figure(10**400), is_figure(True), is_figure('1')
    (True, False, False, False, False)
  """
  is_plain = type(value) is float or is_number(value)  # the first test is quick and usually enough
  return is_plain and (value == 0 or LEAST <= abs(value) <= MOST)


def is_share(value: Any) -> bool:
  """Returns whether a value is a figure between 0 and 1."""
  return is_figure(value) and 0 <= value <= 1


def is_count(value: Any) -> bool:
  """Returns whether a value is a figure of 0 or more."""
  return is_figure(value) and value >= 0


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _is_texts(value: Any) -> bool:
  return isinstance(value, list) and all(map(_is_text, value))


Rule = tuple[Callable[[Any], bool], str]
TEXT: Rule = (_is_text, 'a string')
COUNT: Rule = (is_count, 'a number of 0 or more')
WHOLE: Rule = (lambda value: isinstance(value, int) and is_figure(value), 'a whole number')
RULES: dict[str, Rule] = {
  **dict.fromkeys(SHARES, (is_share, 'a number from 0 to 1')),
  **dict.fromkeys(LOSSES, (is_figure, 'a number of single precision')),
}  # the rule of each figure; any other figure has COUNT
# The fields of a config that a report reads; each but the epochs may be missing or null.
SETTINGS: dict[str, Rule] = {
  'seed': WHOLE,
  'name': TEXT,
  'method': TEXT,
  'hash': TEXT,
  'layers': TEXT,
  'chain': (_is_texts, 'a list of strings'),
  'data.name': TEXT,
  'data.limit': COUNT,
  'data.context': COUNT,
  'model.name': TEXT,
  **{f'model.{size}': COUNT for size in ('width', 'depth', 'heads')},
  **{f'{link}.granularity': TEXT for link in PRUNING_LINKS},
}
BLOCKS = ('data', 'model', *PRUNING_LINKS)


def wrong_in_summary(found: Mapping[str, Any]) -> str | None:
  """Returns the first fault of a summary as 'FIELD that is KIND', or None if it has none."""
  if wrong := _no_figure(found, NEEDED) or _no_dict(found, ('layers', 'phases', 'log_alpha')):
    return wrong
  given = [key for key in MAY_BE_NULL if found.get(key) is not None]
  given += [key for key in ('test_accuracy',) if key in found]
  if wrong := _no_figure(found, given):
    return wrong
  for row in found.get('layers', {}).values():
    if not _is_counted(row):
      return 'layers whose weights are counted'
  if not all(_is_histogram(bins) for bins in found.get('log_alpha', {}).values()):
    return 'log_alpha whose histograms can be drawn'
  for phase in found.get('phases', {}).values():
    if not isinstance(phase, Mapping | None):
      return 'phases that are dicts'
    if phase and not all(is_figure(v) for v in phase.values() if v is not None):
      return 'phases whose figures are numbers'
  return None


def wrong_in_config(found: Mapping[str, Any]) -> str | None:
  """Returns the first fault of a config, or None if it has none."""
  if wrong := _no_figure(found, ('epochs',)) or _no_dict(found, BLOCKS):
    return wrong
  for name, (is_right, what) in SETTINGS.items():
    if (value := get_by_path(found, name)) is not None and not is_right(value):
      return f'{name} that is {what}'
  return None


def wrong_in_start(found: Any) -> str | None:
  """Returns the first fault of an entry of the environment, or None if it has none."""
  if not isinstance(found, Mapping):
    return 'dict for its last start'
  if not isinstance(found.get('devices') or [], list):
    return 'devices that are a list'
  return None if isinstance(found.get('versions') or {}, Mapping) else 'versions that are a dict'


def wrong_in_line(found: Mapping[str, Any]) -> str | None:
  """Returns the first fault of a line of metrics, or None if it has none.

  A loss may be infinite or NaN.

  Example:
    >>> wrong_in_line({'epoch': 1.0, 'train_loss': None}), wrong_in_line({'epoch': '1'})
    (None, 'epoch that is a number')
  """
  given = [key for key in SHARES if found.get(key) is not None]
  # Nearly all lines are right, so the reason is looked for only in one that is not.
  if not (is_count(found.get('epoch')) and all(is_share(found[key]) for key in given)):
    return _no_figure(found, ('epoch', *given))
  losses = [found[key] for key in LOSSES if found.get(key) is not None]
  are_right = all(is_number(loss) and (loss == 0 or not abs(loss) < LEAST) for loss in losses)
  return None if are_right else 'losses that are numbers'


def _no_figure(found, keys) -> str | None:
  for key in keys:
    value = found.get(key)
    is_right, what = RULES.get(key, COUNT)
    if not is_right(value):
      is_known = is_number(value) and value == value  # NaN does not equal itself
      return f'{key} that is {what}: {_short(value)}' if is_known else f'{key} that is a number'
  return None


def _short(number: float) -> str:
  return repr(number) if isinstance(number, float) else f'an integer of {len(str(number))} digits'


def _no_dict(found, keys) -> str | None:
  for key in keys:
    if key in found and not isinstance(found[key], Mapping):
      return f'{key} that is a dict'
  return None


def _is_counted(row) -> bool:
  """Returns whether a layer's weights are counted, and so are its units if it has any."""
  if not _counts(row, ('weights', 'active_weights')):
    return False
  return 'units' not in row or _counts(row, ('units', 'active_units'))


def _counts(row, keys) -> bool:
  return isinstance(row, Mapping) and all(is_count(row.get(key)) for key in keys)


def _is_histogram(bins) -> bool:
  if not isinstance(bins, Mapping) or not all(is_figure(bins.get(key)) for key in BINS):
    return False
  counts, suggested = bins.get('counts'), bins.get('suggested_threshold')
  if not isinstance(counts, list) or not counts or not all(map(is_count, counts)):
    return False
  return suggested is None or is_figure(suggested)
