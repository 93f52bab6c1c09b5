"""Run directories as they lie on disk, finished or not: what each holds, what is wrong with it."""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.experiment import files
from sparsejax.experiment.config.kinds import is_number
from sparsejax.experiment.errors import in_one_line
from sparsejax.experiment.runs import flatten
from sparsejax.reports import shapes, trials
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
    search: the trials of the one that it belongs to; None where it belongs to none.
    is_damaged: whether it has a summary that can't be read.
  """

  path: pathlib.Path
  name: str
  config: Mapping[str, Any]
  summary: Mapping[str, Any]
  metrics: Sequence[Mapping[str, Any]]
  environment: Mapping[str, Any]
  problems: tuple[str, ...]
  is_repeated: bool = False
  search: trials.Trials | None = None
  is_damaged: bool = False

  @property
  def trial(self) -> trials.Trial:
    """Its own trial of the search; {} where there is none."""
    return self.search.by_directory.get(self.path.name, {}) if self.search else {}

  @property
  def state(self) -> str:
    """finished, collapsed, stopped, unfinished, failed or broken.

    Collapsed is a finished network with a layer that has no weight left, or whose validation
    accuracy is that of guessing: no more than a tenth above one in the number of classes, where
    that is known. Failed is a run whose loss left the finite numbers, or that ended with an error.
    Stopped is one that a search did not go on with, for others did better. Broken is one whose
    summary can't be read, or that has none and whose settings can't.
    """
    if self.summary:
      return COLLAPSED if _is_collapsed(self.summary) else FINISHED
    if self.is_damaged or not self.config:
      return BROKEN
    # A loss that is no finite number is null in the metrics: JSON has none of these.
    lost = (
      key in line and not shapes.is_finite(line[key]) for line in self.metrics for key in LOSSES
    )
    if any(lost) or (self.path / files.TRACEBACK).exists():
      return FAILED
    return {layout.FAILED: FAILED, layout.STOPPED: STOPPED}.get(self.trial.get('state'), UNFINISHED)

  @property
  def epoch(self) -> float:
    """How far it is."""
    if self.summary:
      return float(self.summary['epochs'])
    return float(self.metrics[-1]['epoch']) if self.metrics else 0.0

  @property
  def task(self) -> str:
    """The data set and the model of a run.

    Example:
      >>> data = {'name': 'cifar10', 'limit': 10000}
      >>> config = {'data': data, 'model': {'name': 'vgg16', 'width': 8}}
      >>> Run(None, '', config, {}, [], {}, ()).task
      'vgg16 of width 8 on 10,000 images of cifar10'
    """
    data, model = self.config.get('data', {}), self.config.get('model', {})
    width = f' of width {model["width"]}' if model.get('width') else ''
    limit = f'{data["limit"]:,} images of ' if data.get('limit') else ''
    return f'{model.get("name", "?")}{width} on {limit}{data.get("name", "?")}'

  @property
  def method(self) -> str:
    """What a run calls its method."""
    return str(self.config.get('method') or self.config.get('name') or self.name)

  @property
  def experiment(self) -> tuple[str, str, str]:
    """What its seeds have in common: the method too, for two programs can share their settings."""
    return self.task, self.method, self.config.get('hash') or self.name

  @property
  def settings(self) -> dict[str, Any]:
    """Its settings by dotted name."""
    return flatten({key: value for key, value in self.config.items() if key != 'hash'})

  def figure(self, name: str) -> float:
    """A figure of its summary, else of the last line of metrics that has it, else NaN."""
    if name in self.summary:
      value = self.summary[name]
      # JSON has no infinity, which a compression can be.
      return math.inf if value is None and name in INFINITE else _number(value)
    found = (line[name] for line in reversed(self.metrics) if name in line)
    return _number(next(found, None))


LOSSES = ('train_loss', 'validation_loss')
INFINITE = ('compression', 'theoretical_speedup', 'compression_with_bits')


def _number(value: Any) -> float:
  return float(value) if is_number(value) else math.nan


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
    ValueError: no run at all.
  """
  ends = {path.resolve(): _end(path, folder) for folder in folders for path in _find(folder)}
  paths = sorted(ends)
  if not paths:
    where = ', '.join(map(str, folders))
    raise ValueError(f'{where}: no run; allowed are run directories and folders above them')
  named = unique_names(paths)
  folders_of = {path: layout.search_of(path) for path in paths}
  found = {folder: trials.read(folder) for folder in set(folders_of.values()) if folder}
  runs = [
    _with_reason(_read(path, name)._replace(search=found.get(folders_of[path])))
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
  seen = set()
  for path, folders, names in os.walk(folder, followlinks=True):
    if os.path.realpath(path) in seen:  # a link that leads back
      folders.clear()
      continue
    seen.add(os.path.realpath(path))
    if any(name in names for name in FILES):
      yield pathlib.Path(path)
    folders[:] = sorted(set(folders) - {files.CHECKPOINTS})


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
  if summary and (wrong := shapes.wrong_in_summary(summary)):
    problems.append(f'{files.SUMMARY} has no {wrong}')
    summary = {}
  if config and (wrong := shapes.wrong_in_config(config)):
    problems.append(f'{files.CONFIG} has no {wrong}')
    config = {}
  starts = _json(path / files.ENVIRONMENT, list, problems, needed=False)
  if starts and (wrong := shapes.wrong_in_start(starts[-1])):
    problems.append(f'{files.ENVIRONMENT} has no {wrong}')
    starts = []
  metrics = _lines(path / files.METRICS, problems)
  start = starts[-1] if starts else {}
  is_damaged = not summary and (path / files.SUMMARY).exists()
  return Run(path, name, config, summary, metrics, start, tuple(problems), is_damaged=is_damaged)


def _with_reason(run: Run) -> Run:
  """The same run; where it failed, why."""
  if run.state != FAILED:
    return run
  reason = run.trial.get('error')
  if not reason and (run.path / files.TRACEBACK).exists():
    text = (run.path / files.TRACEBACK).read_text(errors='replace').strip()
    reason = text.splitlines()[-1] if text else ''
  return run._replace(problems=(*run.problems, str(reason or 'its loss left the finite numbers')))


def _json(path: pathlib.Path, kind: type, problems: list[str], *, needed: bool = True) -> Any:
  try:
    found = json.loads(path.read_text())
  except FileNotFoundError:
    if needed:
      problems.append(f'{path.name} is missing')
    return kind()
  except (OSError, ValueError) as error:
    problems.append(f'{path.name} can not be read: {in_one_line(error)}')
    return kind()
  if not isinstance(found, kind):
    problems.append(f'{path.name} holds no {kind.__name__}')
    return kind()
  return found


def _lines(path: pathlib.Path, problems: list[str]) -> list[dict[str, Any]]:
  """The lines that are whole and in their order; those that are not are a problem, not an end."""
  try:
    text = path.read_text(errors='replace')
  except FileNotFoundError:
    problems.append(f'{path.name} is missing')
    return []
  except OSError as error:
    problems.append(f'{path.name} can not be read: {error.strerror}')
    return []
  found, wrong = [], []
  for number, line in enumerate(text.split('\n'), 1):  # splitlines would count other bytes as ends
    if not line.strip():
      continue
    try:
      read = json.loads(line)
      if not shapes.is_finite(read['epoch']):
        raise ValueError(line)
      found.append(read)
    except (ValueError, TypeError, KeyError):
      wrong.append(number)
  if wrong:
    others = f', and so are {len(wrong) - 1} more' if len(wrong) > 1 else ''
    problems.append(f'{path.name}, line {wrong[0]}, is cut off or no line of metrics{others}')
  return found


def _with_clashes(runs: Sequence[Run], ends: Sequence[str]) -> list[Run]:
  """The same runs; those that share a path below their folders, or experiment and seed, say so."""
  by_end: dict[str, list[str]] = {}
  for run, end in zip(runs, ends, strict=True):
    by_end.setdefault(end, []).append(run.name)
  counted: dict[tuple, Run] = {}
  # Of one experiment and seed the first with the fewest problems: a damaged copy does not win.
  for run in sorted(runs, key=lambda run: len(run.problems)):
    if run.state in DELIVERED:
      counted.setdefault(_identity(run), run)
  checked = []
  for run, end in zip(runs, ends, strict=True):
    problems = list(run.problems)
    if others := [name for name in by_end[end] if name != run.name]:
      problems.append(f'it has the same name as {others[0]}')
    first = counted.get(_identity(run), run)
    if is_repeated := run.state in DELIVERED and first is not run:
      problems.append(f'it is the experiment and seed of {first.name}, and is not counted again')
    checked.append(run._replace(problems=tuple(problems), is_repeated=is_repeated))
  return checked


def _identity(run: Run) -> tuple:
  return (*run.experiment, run.config.get('seed'))
