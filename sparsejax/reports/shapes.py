"""What a run's files must hold for a report to read them: types, and figures that are numbers."""

import math
from collections.abc import Mapping
from typing import Any

from sparsejax.experiment.config.kinds import is_number

NEEDED = ('epochs', 'validation_accuracy', 'active_fraction', 'active_weights', 'weights')
BINS = ('from', 'to', 'threshold')  # of a histogram of log alpha


def is_finite(value: Any) -> bool:
  """Whether a value is a number, and a finite one."""
  return is_number(value) and math.isfinite(value)


def wrong_in_summary(found: Mapping[str, Any]) -> str | None:
  """Returns what a summary lacks, '... that is a ...', or None."""
  if wrong := _no_number(found, NEEDED) or _no_dict(found, ('layers', 'phases', 'log_alpha')):
    return wrong
  if 'test_accuracy' in found and not is_finite(found['test_accuracy']):
    return 'test_accuracy that is a number'
  for row in found.get('layers', {}).values():
    if not _counts(row, ('weights', 'active_weights')) or ('units' in row) != (
      'active_units' in row and _counts(row, ('units', 'active_units'))
    ):
      return 'layers whose weights are counted'
  if not all(_is_histogram(bins) for bins in found.get('log_alpha', {}).values()):
    return 'log_alpha whose histograms can be drawn'
  phases = found.get('phases', {}).values()
  if not all(phase is None or isinstance(phase, Mapping) for phase in phases):
    return 'phases that are dicts'
  return None


def wrong_in_config(found: Mapping[str, Any]) -> str | None:
  """Returns what a config lacks, or None."""
  if wrong := _no_number(found, ('epochs',)) or _no_dict(found, ('data', 'model', 'prune')):
    return wrong
  return None if isinstance(found.get('hash'), str | None) else 'hash that is a text'


def wrong_in_start(found: Any) -> str | None:
  """Returns what an entry of the environment lacks, or None."""
  if not isinstance(found, Mapping):
    return 'dict for its last start'
  if not isinstance(found.get('devices', []), list):
    return 'devices that are a list'
  return _no_dict(found, ('versions',))


def _no_number(found, keys) -> str | None:
  for key in keys:
    if not is_finite(found.get(key)):
      return f'{key} that is a number'
  return None


def _no_dict(found, keys) -> str | None:
  for key in keys:
    if key in found and not isinstance(found[key], Mapping):
      return f'{key} that is a dict'
  return None


def _counts(row, keys) -> bool:
  return isinstance(row, Mapping) and all(is_number(row.get(key)) for key in keys)


def _is_histogram(bins) -> bool:
  if not isinstance(bins, Mapping) or _no_number(bins, BINS):
    return False
  counts, suggested = bins.get('counts'), bins.get('suggested_threshold')
  if not isinstance(counts, list) or not counts or not all(is_number(count) for count in counts):
    return False
  return suggested is None or is_number(suggested)
