"""Run directories as they lie on disk, finished or not: what each holds, what is wrong with it."""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.experiment import files
from sparsejax.experiment.rates import is_number
from sparsejax.experiment.runs import flatten
from sparsejax.reports import trials
from sparsejax.search import layout

FILES = (files.CONFIG, files.SUMMARY, files.METRICS)
FINISHED, COLLAPSED, STOPPED, UNFINISHED, FAILED, BROKEN = (
  'finished',
  'collapsed',
  'stopped',
  'unfinished',
  'failed',
  'broken',
)
DELIVERED = (FINISHED, COLLAPSED)  # runs that have a network, counted and measured
AS_MEANT = (*DELIVERED, STOPPED)  # runs that ended as they were to end


class Run(NamedTuple):
  """A run directory.

  Attributes:
    path: of it.
    name: the shortest end of the path that no other run of the report has.
    config: its settings, nested; {} where they can't be read.
    summary: its figures; {} where there are none.
    metrics: the lines that can be read.
    environment: of its last start.
    problems: what is wrong with it, a sentence each.
    is_repeated: whether another run of the report is of the same experiment and seed, and counted.
    is_stopped: whether a search stopped it, for others that did better.
  """

  path: pathlib.Path
  name: str
  config: Mapping[str, Any]
  summary: Mapping[str, Any]
  metrics: Sequence[Mapping[str, Any]]
  environment: Mapping[str, Any]
  problems: tuple[str, ...]
  is_repeated: bool = False
  is_stopped: bool = False

  @property
  def state(self) -> str:
    """finished, collapsed, stopped, unfinished, failed or broken.

    Collapsed is a finished network with a layer that has no weight left, or whose validation
    accuracy is that of guessing: no more than a tenth above one in the number of classes, where
    that is known. Failed is a run whose loss left the finite numbers, or that ended with an error.
    Stopped is one that a search did not go on with, for others did better. Broken is one of which
    neither settings nor figures can be read.
    """
    if self.summary:
      return COLLAPSED if _is_collapsed(self.summary) else FINISHED
    if not self.config:
      return BROKEN
    # A loss that is no finite number is null in the metrics: JSON has none of these.
    lost = (key in line and not _is_finite(line[key]) for line in self.metrics for key in LOSSES)
    if any(lost):
      return FAILED
    if (self.path / files.TRACEBACK).exists():
      return FAILED
    return STOPPED if self.is_stopped else UNFINISHED

  @property
  def epoch(self) -> float:
    """How far it is."""
    if self.summary:
      return float(self.summary['epochs'])
    return float(self.metrics[-1].get('epoch', 0.0)) if self.metrics else 0.0

  @property
  def settings(self) -> dict[str, Any]:
    """Its settings by dotted name."""
    return flatten({key: value for key, value in self.config.items() if key != 'hash'})

  def figure(self, name: str) -> float:
    """A figure of its summary, else of the last line of metrics that has it, else NaN."""
    if name in self.summary:
      value = self.summary[name]
      return math.inf if value is None else float(value)  # JSON has no infinite compression
    found = (line[name] for line in reversed(self.metrics) if name in line)
    value = next(found, None)
    return math.nan if value is None else float(value)


LOSSES = ('train_loss', 'validation_loss')


def _is_finite(value: Any) -> bool:
  return is_number(value) and math.isfinite(value)


def _is_collapsed(summary: Mapping[str, Any]) -> bool:
  layers = summary.get('layers', {}).values()
  if any(layer['active_weights'] == 0 < layer['weights'] for layer in layers):
    return True
  classes = [layer['units'] for layer in layers if 'units' in layer][-1:]
  accuracy = summary.get('validation_accuracy', 1.0)
  return bool(classes) and not accuracy > 1.1 / classes[0]


def collect(folders: Sequence[pathlib.Path]) -> list[Run]:
  """Returns every run in the folders and below them, by path.

  Raises:
    ValueError: a folder that is not there, or no run at all.
  """
  for folder in folders:
    if not folder.is_dir():
      raise ValueError(f'{folder}: there is no such folder; allowed are folders with runs')
  ends = {path.resolve(): _end(path, folder) for folder in folders for path in _find(folder)}
  paths = sorted(ends)
  if not paths:
    where = ', '.join(map(str, folders))
    raise ValueError(f'{where}: no run; allowed are run directories and folders above them')
  named = unique_names(paths)
  searches = {folder for path in paths if (folder := layout.search_of(path)) is not None}
  stopped = {
    folder / layout.RUNS / name
    for folder in searches
    for name, trial in trials.by_directory(folder).items()
    if trial['state'] == trials.STOPPED
  }
  runs = [
    _read(path, name)._replace(is_stopped=path in stopped)
    for path, name in zip(paths, named, strict=True)
  ]
  return _with_clashes(runs, [ends[path] for path in paths])


def _end(path: pathlib.Path, folder: pathlib.Path) -> str:
  """By what a person knows a run: its path below the folder; trials of all searches are alike."""
  path = path.resolve()
  if (search := layout.search_of(path)) is not None:
    return path.relative_to(search.parent).as_posix()
  return path.relative_to(folder.resolve()).as_posix() if path != folder.resolve() else path.name


def _find(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  for path, folders, names in os.walk(folder):
    if any(name in names for name in FILES):
      folders.clear()
      yield pathlib.Path(path)
    folders.sort()


def unique_names(paths: Sequence[pathlib.Path]) -> list[str]:
  """Returns for each path its shortest end that no other has.

  Example:
    >>> unique_names([pathlib.Path('/a/x/seed0'), pathlib.Path('/a/y/seed0'), pathlib.Path('/a/z')])
    ['x/seed0', 'y/seed0', 'z']
  """
  ends = [['/'.join(path.parts[-n:]) for n in range(1, len(path.parts) + 1)] for path in paths]
  counts: dict[str, int] = {}
  for end in (end for of_path in ends for end in of_path):
    counts[end] = counts.get(end, 0) + 1
  return [next((end for end in of_path if counts[end] == 1), of_path[-1]) for of_path in ends]


def _read(path: pathlib.Path, name: str) -> Run:
  problems: list[str] = []
  config = _json(path / files.CONFIG, dict, problems)
  summary = _json(path / files.SUMMARY, dict, problems, needed=False)
  if summary and (wrong := _wrong_in(summary, NEEDED, optional=('layers',))):
    problems.append(f'{files.SUMMARY} has no {wrong}')
    summary = {}
  if config and (wrong := _wrong_in(config, ('epochs',), optional=('data', 'model', 'prune'))):
    problems.append(f'{files.CONFIG} has no {wrong}')
    config = {}
  environment = _json(path / files.ENVIRONMENT, list, problems, needed=False)
  metrics = _lines(path / files.METRICS, problems)
  last = environment[-1] if environment and isinstance(environment[-1], dict) else {}
  return Run(path, name, config, summary, metrics, last, tuple(problems))


def _wrong_in(found: Mapping, numbers: Sequence[str], optional: Sequence[str]) -> str | None:
  """The first figure that is missing or no finite number, or part that is no dict."""
  for key in numbers:
    if not _is_finite(found.get(key)):
      return f'{key} that is a number'
  for key in optional:
    if key in found and not isinstance(found[key], Mapping):
      return f'{key} that is a dict'
  layers = found.get('layers') if 'layers' in optional else None
  for row in (layers or {}).values():
    if not isinstance(row, Mapping) or not {'weights', 'active_weights'} <= set(row):
      return 'layers whose weights are counted'
  return None


NEEDED = ('epochs', 'validation_accuracy', 'active_fraction', 'active_weights', 'weights')


def _json(path: pathlib.Path, kind: type, problems: list[str], *, needed: bool = True) -> Any:
  try:
    found = json.loads(path.read_text())
  except FileNotFoundError:
    if needed:
      problems.append(f'{path.name} is missing')
    return kind()
  except (OSError, ValueError) as error:
    problems.append(f'{path.name} can not be read: {" ".join(str(error).split())}')
    return kind()
  if not isinstance(found, kind):
    problems.append(f'{path.name} holds no {kind.__name__}')
    return kind()
  return found


def _lines(path: pathlib.Path, problems: list[str]) -> list[dict[str, Any]]:
  """The lines that are whole and in their order; one that is not is a problem, not an end."""
  try:
    text = path.read_text(errors='replace')
  except FileNotFoundError:
    problems.append(f'{path.name} is missing')
    return []
  except OSError as error:
    problems.append(f'{path.name} can not be read: {error.strerror}')
    return []
  found = []
  for number, line in enumerate(text.splitlines(), 1):
    try:
      read = json.loads(line)
      float(read['epoch'])
      found.append(read)
    except (ValueError, TypeError, KeyError):
      problems.append(f'{path.name}, line {number}, is cut off or no line of metrics')
  return found


def _with_clashes(runs: Sequence[Run], ends: Sequence[str]) -> list[Run]:
  """The same runs; those that share a path below their folders, or experiment and seed, say so."""
  firsts: dict[tuple, str] = {}
  by_end: dict[str, list[str]] = {}
  for run, end in zip(runs, ends, strict=True):
    by_end.setdefault(end, []).append(run.name)
  checked = []
  for run, end in zip(runs, ends, strict=True):
    problems, is_repeated = list(run.problems), False
    if others := [name for name in by_end[end] if name != run.name]:
      problems.append(f'it has the same name as {others[0]}')
    if run.state in DELIVERED and run.config.get('hash'):
      key = (run.config['hash'], run.config.get('seed'))
      if is_repeated := key in firsts:
        problems.append(f'it is the experiment and seed of {firsts[key]}, and is not counted again')
      firsts.setdefault(key, run.name)
    checked.append(run._replace(problems=tuple(problems), is_repeated=is_repeated))
  return checked
