"""The settings that a search tried, each with its seeds, and the front of those that none beats."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optuna

from sparsejax.reports.records.run_groups import moments
from sparsejax.reports.records.trials import Trial
from sparsejax.search import search_folder
from sparsejax.search.plan import space
from sparsejax.search.plan.settings import score


class Setting(NamedTuple):
  """One setting that a search tried, with one trial or, in a grid, one for every seed.

  Attributes:
    trials: the finished trials, or all of them if none finished.
    metrics: the means of their metrics.
  """

  trials: Sequence[Trial]
  metrics: Mapping[str, float]

  @property
  def is_finished(self) -> bool:
    """Whether it was trained to its end."""
    return self.trials[0]['state'] == search_folder.FINISHED

  @property
  def values(self) -> dict[str, Any]:
    """Its parameters, without the seed."""
    return {key: value for key, value in self.trials[0]['values'].items() if key != space.SEED}


def tried(trials: Sequence[Trial]) -> list[Setting]:
  """Returns the settings that a search has measured; in a grid the trials of all seeds are one."""
  by_values: dict[str, list[Trial]] = {}
  for trial in trials:
    values = {key: value for key, value in trial['values'].items() if key != space.SEED}
    key = (
      json.dumps(values, sort_keys=True) if space.SEED in trial['values'] else trial['directory']
    )
    by_values.setdefault(key, []).append(trial)
  found = []
  for own in by_values.values():
    measured = [trial for trial in own if trial['metrics']]
    shown = [trial for trial in measured if trial['state'] == search_folder.FINISHED] or measured
    if shown:
      names = [name for name in shown[0]['metrics'] if all(name in t['metrics'] for t in shown)]
      means = {name: moments([t['metrics'][name] for t in shown])[0] for name in names}
      found.append(Setting(shown, means))
  return found


def front(settings: Mapping[str, Any], found: Sequence[Setting]) -> list[Setting]:
  """The finished settings that break no constraint and that none beats in every objective."""
  goals = settings['objectives']
  study = optuna.create_study(directions=[goal['direction'] for goal in goals])
  able = [s for s in found if s.is_finished and score(settings, s.metrics)[0] == 0]
  for setting in able:
    values = [setting.metrics[goal['metric']] for goal in goals]
    study.add_trial(optuna.trial.create_trial(values=values))
  return [able[best.number] for best in study.best_trials]
