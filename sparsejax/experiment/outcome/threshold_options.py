"""Changes the thresholds of log alpha in a run's settings, from a command line's options."""

from collections.abc import Mapping
from typing import Any

from sparsejax.experiment.terminal.errors import UsageError

SUGGESTED = 'suggested'
ADVICE = f'give LAYER=NUMBER,LAYER=NUMBER or {SUGGESTED}'


def change(
  config: Mapping[str, Any],
  summary: Mapping[str, Any],
  *,
  threshold: str | None = None,
  thresholds: str | None = None,
) -> dict[str, Any]:
  """Returns the settings of a run with other thresholds; those not given stay.

  Building the settings checks later that a threshold is a number and that its layer exists.

  Args:
    config: the run's settings, whose layers have posteriors.
    summary: its figures, with the suggested thresholds.
    threshold: the threshold of layers without their own.
    thresholds: 'conv1=4.0,fc1=2.3', or 'suggested'.

  Raises:
    UsageError: nothing is given, the string is not a list of thresholds, none is suggested, or the
      threshold was part of the training.

  Example:
    >>> block = {'threshold': 3.0, 'thresholds': {'fc1': 2.0, 'fc2': 2.5}}
    >>> config = {'layers': 'bayesian', 'bayesian': block}
    >>> change(config, {}, thresholds='fc1=1')['bayesian']
    {'threshold': 3.0, 'thresholds': {'fc1': 1.0, 'fc2': 2.5}}
  """
  family = config['layers']
  before = config[family]
  block = dict(before)
  if threshold is None and thresholds is None:
    raise UsageError('thresholds is missing: give --threshold, --thresholds or both')
  if threshold is not None:
    block['threshold'] = _number(threshold)
  if thresholds is not None:
    own = _suggested(summary) if thresholds == SUGGESTED else _parse_thresholds(thresholds)
    block['thresholds'] = {**before.get('thresholds', {}), **own}
  if block.get('training_mask') and block != before:
    given = {'threshold': threshold, 'thresholds': thresholds}
    options = ', '.join(f'{name}={text}' for name, text in given.items() if text is not None)
    raise UsageError(
      f'{family}: {options}: with {family}.training_mask the threshold was part of the training; '
      f"it must be the run's own, {before['threshold']}"
    )
  return {**config, family: block}


def _number(text: str) -> float | str:
  try:
    return float(text)
  except ValueError:
    return text


def _parse_thresholds(text: str) -> dict[str, float | str]:
  found: dict[str, float | str] = {}
  for part in text.split(','):
    layer, separator, value = (piece.strip() for piece in part.partition('='))
    if not (layer and separator):
      raise UsageError(f"thresholds={text}: '{part}' is not the threshold of a layer; {ADVICE}")
    if layer in found:
      raise UsageError(f"thresholds={text}: '{layer}' is given twice; {ADVICE}")
    found[layer] = _number(value)
  return found


def _suggested(summary: Mapping[str, Any]) -> dict[str, float]:
  bins = summary.get('log_alpha', {})
  suggestions = {layer: row.get('suggested_threshold') for layer, row in bins.items()}
  found = {layer: value for layer, value in suggestions.items() if value is not None}
  if not found:
    raise UsageError(
      f'thresholds={SUGGESTED}: the summary of the run suggests none; {ADVICE.split(" or ")[0]}'
    )
  return found
