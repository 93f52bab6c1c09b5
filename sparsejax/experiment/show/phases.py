"""The phases before a run's final network: the cut, or the reason why there was none."""

from collections.abc import Mapping
from typing import Any

BEFORE, AFTER, FINAL = 'dense', 'pruned', 'retrained'
SPARSE, DEPLOYED, SHRUNK = 'none: sparse from the start', 'none: a posterior', 'none: zero before'
# Names for summary.json's dense, pruned and retrained phases if the masks cut nothing.
NAMES_WITHOUT_CUT = {BEFORE: 'before masks', AFTER: 'last mask', FINAL: 'final'}


def final(summary: Mapping[str, Any]) -> float | None:
  """Returns the validation accuracy of the delivered network, or None if there is none."""
  return _accuracy(summary, 'deployed', FINAL, BEFORE)


def cut_accuracies(summary: Mapping[str, Any]) -> tuple[float, float] | None:
  """Returns the validation accuracies before pruning began and just after its last cut.

  None if the run measured only one of the two, or if pruning removed no weight between them.

  Args:
    summary: the run's summary, whose `phases` map 'dense' and 'pruned' to figures.

  Example:
    >>> before = {'step': 9, 'validation_accuracy': 0.9, 'active_weights': 100}
    >>> after = {'step': 9, 'validation_accuracy': 0.5, 'active_weights': 10}
    >>> cut_accuracies({'phases': {'dense': before, 'pruned': after}})
    (0.9, 0.5)
    >>> cut_accuracies({'phases': {'dense': before, 'pruned': before}})  # no weight was removed
    >>> cut_accuracies({'phases': {'dense': before}})
  """
  before, after = _accuracy(summary, BEFORE), _accuracy(summary, AFTER)
  if before is None or after is None:
    return None
  return None if no_cut_reason(summary) else (before, after)


def no_cut_reason(summary: Mapping[str, Any]) -> str:
  """Returns why there was no real cut; '' if there was one, '-' for a dense network.

  Example:
    >>> start = {'step': 0, 'validation_accuracy': 0.1, 'active_weights': 100}
    >>> last = {'step': 9, 'validation_accuracy': 0.9, 'active_weights': 10}
    >>> no_cut_reason({'phases': {'dense': start, 'pruned': last}})
    'none: sparse from the start'
    >>> no_cut_reason({'phases': {'dense': last}})
    '-'
    >>> no_cut_reason({'phases': {'dense': start, 'pruned': last}, 'is_pretrained': True})
    ''
    >>> no_cut_reason({'phases': {'deployed': last}})
    'none: a posterior'
  """
  phases = summary.get('phases') or {}
  before, after = phases.get(BEFORE), phases.get(AFTER)
  if phases.get('deployed'):
    return DEPLOYED
  if not before or not after:
    return '-'
  if before.get('step') == 0 and not summary.get('is_pretrained'):
    return SPARSE
  counts = [phase.get('active_weights') for phase in (before, after)]
  if None in counts or counts[0] != counts[1]:
    return ''
  return '-' if counts[0] == summary.get('weights', counts[0]) else SHRUNK


def named_phases(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
  """Returns the phases with their names: not dense, pruned and retrained if there was no cut.

  Example:
    >>> start = {'step': 0, 'validation_accuracy': 0.1, 'active_weights': 100}
    >>> last = {'step': 9, 'validation_accuracy': 0.9, 'active_weights': 10}
    >>> [name for name, _ in named_phases({'phases': {'dense': start, 'pruned': last}})]
    ['before masks', 'last mask']
    >>> [name for name, _ in named_phases({'phases': {'dense': last}})]
    ['dense']
  """
  phases = summary.get('phases') or {}
  names = NAMES_WITHOUT_CUT if phases.get(AFTER) and no_cut_reason(summary) else {}
  return [(names.get(key, key), phase) for key, phase in phases.items()]


def _accuracy(summary: Mapping[str, Any], *names: str) -> float | None:
  """The validation accuracy of the first of some phases that has one; None if none has."""
  phases = summary.get('phases') or {}
  found = ((phases.get(name) or {}).get('validation_accuracy') for name in names)
  return next((value for value in found if isinstance(value, int | float)), None)
