"""Run directories, finished or not: what each one holds, and what is wrong with it."""

import fnmatch
import math
import os
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.experiment.config.fields.common import TEXTS
from sparsejax.experiment.config.identity import flatten
from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import checkpoint, digests
from sparsejax.experiment.rundir.runs import num_classes
from sparsejax.experiment.terminal.errors import in_one_line
from sparsejax.experiment.terminal.say import printable
from sparsejax.reports.records import curves, finding, reading, record_checks, shipments, trials
from sparsejax.reports.records.shipments import Shipment
from sparsejax.search import search_folder

FINISHED, COLLAPSED, STOPPED, UNFINISHED, FAILED, BROKEN = (
  'finished',
  'collapsed',
  'stopped',
  'unfinished',
  'failed',
  'broken',
)
DELIVERED = (FINISHED, COLLAPSED)  # runs with a network that is counted and measured
AS_MEANT = (*DELIVERED, STOPPED)  # runs that ended as intended


class Run(NamedTuple):
  """A run directory.

  Attributes:
    path: the path by which it was found, possibly through a link.
    name: the shortest end of the path that no other run of the report has.
    config: its nested settings; {} if they cannot be read.
    summary: its figures; {} if it has none.
    metrics: the part of its metrics that is kept.
    environment: the environment of its last start.
    problems: what is wrong with it, one sentence each.
    is_repeated: whether another run of the same experiment and seed is counted in this report.
    search: the trials of the search that it belongs to; None if it belongs to none.
    is_damaged: whether its summary cannot be read or is another run's.
    is_changed: whether its settings or its summary were changed after it wrote them.
    shipments: its shipments, each once.
  """

  path: pathlib.Path
  name: str
  config: Mapping[str, Any]
  summary: Mapping[str, Any]
  metrics: curves.Metrics
  environment: Mapping[str, Any]
  problems: tuple[str, ...]
  is_repeated: bool = False
  search: trials.Trials | None = None
  is_damaged: bool = False
  is_changed: bool = False
  shipments: tuple[Shipment, ...] = ()

  @property
  def trial(self) -> trials.Trial:
    """Its own trial of the search, or {} if it has none."""
    return self.search.by_directory.get(self.path.name, {}) if self.search else {}

  @property
  def state(self) -> str:
    """One of finished, collapsed, stopped, unfinished, failed or broken.

    A collapsed run is finished, but a layer of its network has no weight left, or its validation
    accuracy is that of guessing: at most 1.1 over the number of classes, if that is
    known. A failed run has a loss that became infinite or NaN, or ended with an error. A stopped
    run was ended by a search because others did better. A broken run has a summary that cannot be
    read, or neither a summary nor readable settings.
    """
    if self.summary:
      return COLLAPSED if _is_collapsed(self.summary) else FINISHED
    if self.is_damaged or not self.config:
      return BROKEN
    if self.metrics.is_lost or os.path.exists(self.path / files.TRACEBACK):
      return FAILED
    return {search_folder.FAILED: FAILED, search_folder.STOPPED: STOPPED}.get(
      self.trial.get('state'), UNFINISHED
    )

  @property
  def is_counted(self) -> bool:
    """Whether its figures count for its experiment."""
    return self.state in DELIVERED and not self.is_repeated and not self.is_changed

  @property
  def epoch(self) -> float:
    """The last epoch that it has reached."""
    if self.summary:
      return float(self.summary['epochs'])
    return self.metrics.epoch

  @property
  def task(self) -> str:
    """The data set and the model of a run.

    Example:
      >>> data = {'name': 'cifar10', 'limit': 10000}
      >>> config = {'data': data, 'model': {'name': 'vgg16', 'width': 8}}
      >>> Run(None, '', config, {}, curves.reduce_lines(()), {}, ()).task
      'vgg16 of width 8 on 10,000 images of cifar10'
      >>> data, model = {'name': 'text', 'context': 64}, {'name': 'transformer', 'depth': 2}
      >>> Run(None, '', {'data': data, 'model': model}, {}, curves.reduce_lines(()), {}, ()).task
      'transformer of depth 2 on windows of 64 bytes of text'
    """
    data, model = self.config.get('data', {}), self.config.get('model', {})
    sizes = [f'{size} {model[size]}' for size in ('width', 'depth', 'heads') if model.get(size)]
    size = f' of {", ".join(sizes)}' if sizes else ''
    size += ' with widths of its own' if model.get('widths') else ''
    examples = 'windows' if data.get('name') in TEXTS else 'images'
    limit = f'{data["limit"]:,} {examples} of ' if data.get('limit') else ''
    if data.get('context'):
      limit = f'{limit or f"{examples} of "}{data["context"]} bytes of '
    return f'{model.get("name", "?")}{size} on {limit}{data.get("name", "?")}'

  @property
  def method(self) -> str:
    """The name that a run gives its method."""
    return str(self.config.get('method') or self.config.get('name') or self.name)

  @property
  def experiment(self) -> tuple[str, str, str]:
    """The key that its seeds share; the method is in it, since two programs can share settings."""
    return self.task, self.method, self.config.get('hash') or self.name

  @property
  def settings(self) -> dict[str, Any]:
    """Its settings by dotted name."""
    return flatten({key: value for key, value in self.config.items() if key != 'hash'})

  def figure(self, name: str) -> float:
    """A figure from its summary, else from the last line of metrics that has it, else NaN."""
    if name in self.summary:
      value = self.summary[name]
      # A compression can be infinite, but JSON has no infinity.
      return math.inf if value is None and name in INFINITE else _number(value)
    return _number(self.metrics.last.get(name))


INFINITE = ('compression', 'theoretical_speedup', 'compression_with_bits')


def _number(value: Any) -> float:
  return float(value) if record_checks.is_figure(value) else math.nan


def _is_collapsed(summary: Mapping[str, Any]) -> bool:
  layers = summary.get('layers', {}).values()
  if any(layer['active_weights'] == 0 < layer['weights'] for layer in layers):
    return True
  classes = num_classes(summary)
  accuracy = summary.get('validation_accuracy', 1.0)
  return classes is not None and not accuracy * classes > 1.1


class Choice(NamedTuple):
  """The selected runs: those that match a pattern of each kind, where * is any text.

  Attributes:
    runs: patterns for names, or for paths below the folders; () selects all.
    methods: patterns for the names of methods; a run without settings may be of any method.
  """

  runs: Sequence[str] = ()
  methods: Sequence[str] = ()

  def matching_paths(self, ends: Mapping[pathlib.Path, str], names: Mapping[pathlib.Path, str]):
    """Returns the paths of the runs whose names match.

    Raises:
      ValueError: no run's name matches.
    """
    found = [path for path in ends if _fits({ends[path], names[path]}, self.runs)]
    if not found:
      raise ValueError(_none_fits('runs', self.runs, names.values()))
    return found

  def matching_runs(self, runs: Sequence[Run]) -> list[Run]:
    """Returns the runs whose methods match or are unknown.

    Raises:
      ValueError: no run's method matches.
    """
    if not any(run.config and _fits({run.method}, self.methods) for run in runs) and self.methods:
      raise ValueError(
        _none_fits('methods', self.methods, {run.method for run in runs if run.config})
      )
    return [run for run in runs if not run.config or _fits({run.method}, self.methods)]


def _fits(names: Collection[str], patterns: Sequence[str]) -> bool:
  if not patterns:
    return True
  return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _none_fits(flag: str, patterns: Sequence[str], known: Iterable[str]) -> str:
  names = sorted(set(known))
  more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
  there_are = ', '.join(name[:LONGEST_NAME] for name in names[:SHOWN])
  return f'--{flag}={",".join(patterns)} must match one of {there_are}{more}'


SHOWN, LONGEST_NAME = 8, 60  # names in a message, and characters of each


def collect(folders: Sequence[pathlib.Path], choice: Choice | None = None) -> list[Run]:
  """Returns the runs in the folders and below them, by path, each with its shipments.

  A shipment that cannot be read, or whose run is not among these, becomes a broken run.

  Args:
    folders: run directories, or folders above them.
    choice: the runs to select; None selects all.

  Raises:
    ValueError: there is no run, or none is selected.
  """
  choice = choice or Choice()
  found: dict[pathlib.Path, str] = {}
  for folder in folders:
    for path in finding.find(folder.resolve()):
      found[path] = finding.end(path, folder.resolve())
  ends = finding.each_once(found)
  shipped = sorted(path for path in ends if os.path.exists(path / files.SHIPPED))
  paths = sorted(ends.keys() - shipped)
  if not paths:
    where = ', '.join(map(str, folders))
    raise ValueError(f'{where}: no run; give run directories or folders above them')
  names = dict(zip(paths, map(printable, finding.unique_names(paths)), strict=True))
  paths = choice.matching_paths({path: ends[path] for path in paths}, names)
  folders_of = {path: search_folder.find_search(path) for path in paths}
  read = {folder: trials.read(folder) for folder in set(folders_of.values()) if folder}
  runs = [_read_or_blank(path, names[path], read.get(folders_of[path])) for path in paths]
  chosen = choice.matching_runs(runs)
  chosen = _with_shipments(chosen, shipped, is_complete=not (choice.runs or choice.methods))
  return _mark_clashes(chosen, [ends[run.path] for run in chosen])


def _with_shipments(
  runs: Sequence[Run], folders: Iterable[pathlib.Path], *, is_complete: bool
) -> list[Run]:
  """Returns the runs with their shipments.

  Args:
    runs: the chosen runs.
    folders: the folders of shipments.
    is_complete: whether all runs that were found are chosen. Then a broken run is added for each
      shipment that cannot be read, or whose run is not among them.
  """
  by_run: dict[tuple, list[Shipment]] = {}
  broken = []
  known = {_owner(run) for run in runs}
  for folder in folders:
    try:
      shipment = shipments.read(folder)
    except ValueError as error:
      broken.append(blank(folder, printable(folder.name), in_one_line(error)))
      continue
    by_run.setdefault(shipment.run, []).append(shipment)
    if shipment.run not in known:
      whose = f'hash {printable(shipment.run[0])} and seed {shipment.run[1]}'
      reason = f'it is a shipment of the run with {whose}, which is not in this report'
      broken.append(blank(folder, printable(folder.name), reason))
  with_own = [_with_own(run, by_run[_owner(run)]) if _owner(run) in by_run else run for run in runs]
  return [*with_own, *(broken if is_complete else ())]


def _with_own(run: Run, found: Sequence[Shipment]) -> Run:
  """Returns the run with those of its shipments that count, and what is wrong with the others."""
  try:
    network = checkpoint.source_digest(os.fspath(run.path))
  except OSError:  # only its figures were kept
    network = None
  counted, problems = shipments.choose(found, network)
  return run._replace(shipments=counted, problems=(*run.problems, *problems))


def _owner(run: Run) -> tuple:
  """The hash and seed by which a shipment names its run."""
  named = run.config or run.summary
  return named.get('hash'), named.get('seed')


def _read_or_blank(path: pathlib.Path, name: str, search: trials.Trials | None) -> Run:
  try:
    return _add_reason(_read(path, name)._replace(search=search))
  except Exception as error:  # whatever it is, it concerns this run, and the others are still read
    return blank(path, name, f'it cannot be read: {type(error).__name__}: {in_one_line(error)}')


def _read(path: pathlib.Path, name: str) -> Run:
  problems: list[str] = []
  if (reason := _unreadable_reason(path)) is not None:
    return blank(path, name, reason)
  config = _json(path / files.CONFIG, dict, problems)
  summary = _json(path / files.SUMMARY, dict, problems, needed=False)
  if summary and (wrong := record_checks.wrong_in_summary(summary)):
    problems.append(f'{files.SUMMARY} has no {wrong}')
    summary = {}
  if config and (wrong := record_checks.wrong_in_config(config)):
    problems.append(f'{files.CONFIG} has no {wrong}')
    config = {}
  if summary and config and (wrong := _owner_mismatch(summary, config, files.SUMMARY)):
    problems.append(wrong)
    summary = {}
  has_begun = bool(summary) or os.path.exists(path / files.METRICS)
  starts = _json(path / files.ENVIRONMENT, list, problems, needed=has_begun)
  if starts and (wrong := record_checks.wrong_in_start(starts[-1])):
    problems.append(f'{files.ENVIRONMENT} has no {wrong}')
    starts = []
  if starts and config and (wrong := _owner_mismatch(starts[-1], config, files.ENVIRONMENT)):
    problems.append(wrong)
    starts = []
  metrics = curves.read(path / files.METRICS, problems)
  if not summary and (wrong := _not_as_saved(path)):
    problems.append(wrong)
  reported = ' '.join(problems)
  changed = digests.changed(path)
  is_changed = not {files.CONFIG, files.SUMMARY}.isdisjoint(changed)
  problems += [f'{name} {digests.CHANGED}' for name in changed if name not in reported]
  problems += ['it is not counted'] if is_changed and summary else []
  start = starts[-1] if starts else {}
  is_damaged = not summary and os.path.exists(path / files.SUMMARY)
  found = path, name, config, summary, metrics, start, tuple(problems)
  return Run(*found, is_damaged=is_damaged, is_changed=is_changed)


def _owner_mismatch(found: Mapping[str, Any], config: Mapping[str, Any], file: str) -> str | None:
  """Returns why a file is not of the run whose config is beside it, or None if it may be."""
  for key in ('hash', 'seed'):
    theirs, mine = found.get(key), config.get(key)
    if None not in (theirs, mine) and theirs != mine:
      return f'{file} is of a run with {key} {theirs}, {files.CONFIG} has {mine}'
  return None


def _not_as_saved(path: pathlib.Path) -> str | None:
  """Returns how the metrics differ from the copy in the newest checkpoint.

  It is None if they begin as the copy does, or if either is missing or cannot be read.
  """
  try:
    saved = [folder for folder in (path / files.CHECKPOINTS).iterdir() if folder.name.isdigit()]
    newest = max(saved, key=lambda folder: int(folder.name)).name
    saved_text = (path / files.CHECKPOINTS / newest / files.METRICS).read_bytes()
    with (path / files.METRICS).open('rb') as file:
      text = file.read(len(saved_text))
  except (OSError, ValueError):  # nothing was saved, or what is missing is a problem of its own
    return None
  if text == saved_text:
    return None
  what = 'lacks lines that were' if saved_text.startswith(text) else 'does not begin with the lines'
  return f'{files.METRICS} {what} there at step {int(newest)}, when it was saved'


def _unreadable_reason(path: pathlib.Path) -> str | None:
  """Returns why a folder cannot be read, or None if it can."""
  try:
    os.scandir(path).close()
  except OSError as error:
    if path.is_symlink():
      return f'it is a link to {printable(os.readlink(path))}: {error.strerror}'
    return f'it cannot be read: {error.strerror}'
  return None


def blank(path: pathlib.Path, name: str, problem: str) -> Run:
  """Returns a run about which only a problem is known."""
  return Run(path, name, {}, {}, curves.reduce_lines(()), {}, (problem,))


def _add_reason(run: Run) -> Run:
  """Returns the run; if it failed, with the reason among its problems."""
  if run.state != FAILED:
    return run
  reason = run.trial.get('error') or _last_line(run.path / files.TRACEBACK)
  reason = printable(reason or 'its loss became infinite or NaN')
  reason = reason if len(reason) <= LONGEST_REASON else f'{reason[:LONGEST_REASON]}...'
  return run._replace(problems=(*run.problems, reason))


LONGEST_REASON = 300  # characters
TAIL = 1 << 16  # bytes at the end of a traceback that are read


def _last_line(path: pathlib.Path) -> str:
  """The last line of a text file, or '' if it has none."""
  try:
    with path.open('rb') as file:
      file.seek(max(os.fstat(file.fileno()).st_size - TAIL, 0))
      lines = file.read(TAIL).decode(errors='replace').strip().splitlines()
  except OSError:
    return ''
  return lines[-1] if lines else ''


def _json(path: pathlib.Path, kind: type, problems: list[str], *, needed: bool = True) -> Any:
  try:
    found = reading.read(path)
  except FileNotFoundError:
    if needed:
      problems.append(f'{path.name} is missing')
    return kind()
  except reading.ReadingError as error:
    problems.append(f'{path.name} cannot be read: {error}')
    return kind()
  if not isinstance(found, kind):
    problems.append(f'{path.name} holds no {kind.__name__}')
    return kind()
  return found


def _mark_clashes(runs: Sequence[Run], ends: Sequence[str]) -> list[Run]:
  """Returns the runs, with a problem noted for those that share a path, or experiment and seed."""
  by_end: dict[str, list[str]] = {}
  for run, end in zip(runs, ends, strict=True):
    by_end.setdefault(end, []).append(run.name)
  counted: dict[tuple, Run] = {}
  # Of runs with one experiment and seed, the one with the fewest problems counts, no damaged copy.
  for run in sorted(runs, key=lambda run: len(run.problems)):
    if run.is_counted:
      counted.setdefault(_identity(run), run)
  checked = []
  for run, end in zip(runs, ends, strict=True):
    problems = list(run.problems)
    if others := [name for name in by_end[end] if name != run.name]:
      problems.append(f'it has the same name as {others[0]}')
    first = counted.get(_identity(run), run)
    if is_repeated := run.state in DELIVERED and first is not run:
      problems.append(f'it has the experiment and seed of {first.name}, and is not counted again')
    checked.append(run._replace(problems=tuple(problems), is_repeated=is_repeated))
  return checked


def _identity(run: Run) -> tuple:
  return (*run.experiment, run.config.get('seed'))
