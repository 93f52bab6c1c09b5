"""The runs of pages: their choice and order; each is a separate process that stops on request."""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from sparsejax.internal import signals
from tools import ROOT
from tools.pages.entries import Entry
from tools.pages.pages import PAGES

GPU = 'GPU'  # the tier of rows that need a GPU


class Task(NamedTuple):
  """One run: a row's seed, in a directory below the folder of its page."""

  folder: str
  entry: Entry
  seed: int

  @property
  def place(self) -> tuple[str, str, int]:
    """The key of a run; rows of two pages may be the same run."""
    return self.folder, self.entry.label, self.seed

  @property
  def needs(self) -> tuple[str, str, int] | None:
    """The key of the run that must have ended well before this one starts."""
    return (self.folder, self.entry.needs, self.seed) if self.entry.needs else None


def plan(chosen: Sequence[tuple[str, str]], *, gpu: bool) -> list[Task]:
  """Returns the runs in order of importance: by tier, then seed, then row.

  Args:
    chosen: the name of each page and a regular expression over its rows; needed rows are added.
    gpu: whether there is a GPU; its rows then come first, and are otherwise left out.
  """
  ranked: dict[tuple, tuple] = {}
  for name, only in chosen:
    folder, rows = PAGES[name].runs or name, {e.label: e for e in PAGES[name].entries}
    for position, entry in enumerate(rows.values()):
      if not re.search(only, entry.label) or (entry.tier == GPU and not gpu):
        continue
      for number, seed in enumerate(entry.seeds):
        for depth, row in enumerate(_with_needs(entry, rows)):
          task = Task(folder, row, seed)
          rank = (entry.tier != GPU, entry.tier, number, position, -depth)
          if task.place not in ranked or rank < ranked[task.place][0]:
            ranked[task.place] = rank, task
  return [task for _, task in sorted(ranked.values(), key=lambda found: found[0])]


def _with_needs(entry: Entry, rows: dict[str, Entry]) -> Iterator[Entry]:
  """Returns the row and all rows that it needs, directly or not."""
  while entry is not None:
    yield entry
    entry = rows.get(entry.needs)


def command_of(entry: Entry, seed: int, runs: pathlib.Path, data: str | None) -> list[str]:
  """Returns the arguments for Python that run one seed of a row in a directory below `runs`."""
  runs = runs.absolute()
  workdir = [f'--workdir={runs / entry.label / f"seed{seed}"}']
  place = [str(pathlib.Path(data).absolute())] if data else []
  if entry.deploys:
    source = runs / entry.deploys / f'seed{seed}'
    command = ['-m', 'sparsejax.deploy', f'--run={source}', *entry.overrides, *workdir]
    return command + [f'--data_dir={path}' for path in place]
  if entry.ships:
    source = runs / entry.ships / f'seed{seed}'
    out = f'--out={runs / entry.label / f"seed{seed}"}'
    command = ['-m', 'sparsejax.ship', f'--run={source}', out, *entry.overrides]
    return command + [f'--data_dir={path}' for path in place]
  command = [entry.program, f'--config={entry.config}', *entry.overrides]
  if entry.trunk:
    command.append(f'--config.init_from={runs / entry.trunk / f"seed{seed}"}')
  command += [f'--config.seed={seed}', *workdir]
  return command + [f'--config.data.dir={path}' for path in place]


def has_gpu() -> bool:
  """Whether JAX finds a GPU; a separate process looks, so that the GPU is free again afterwards."""
  ask = 'import jax; print(jax.default_backend())'
  found = subprocess.run(
    [sys.executable, '-c', ask], capture_output=True, text=True, process_group=0
  )
  return found.stdout.strip() == 'gpu'


class Children:
  """The current processes; a signal that would end this process in its block ends them first.

  Each saves and ends; then SystemExit with 128 plus the signal's number leaves the block.
  """

  def __init__(self):
    self.stopped_by: int | None = None
    self._is_over = False
    self._running: set[subprocess.Popen] = set()
    self._lock = threading.Lock()

  def __enter__(self):
    self._block = signals.handled(self._stop)
    self._block.__enter__()
    return self

  def __exit__(self, *exception):
    self._block.__exit__(*exception)
    if self.stopped_by is not None:
      sys.exit(128 + self.stopped_by)

  def _stop(self, number, frame) -> None:
    del frame
    self.stopped_by = number
    self.end()

  def end(self) -> None:
    """Makes the current processes save and end; no other is started."""
    self._is_over = True
    for process in tuple(self._running):
      process.terminate()

  def run(self, command: Sequence[str], cores: set[int], log: pathlib.Path) -> int | None:
    """Returns the exit status of a command, or None if it may not start any more.

    Args:
      command: the command, which runs in the root of the project.
      cores: the cores that it may use; if empty, all.
      log: the file to append its output to.
    """
    with log.open('a') as said:
      with self._lock:
        if self._is_over:
          return None
        # It gets its own group, so that Ctrl-C reaches it only once, through `_stop`. With its own
        # session it would get its share of the CPU regardless of niceness.
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, process_group=0)
        self._running.add(process)
      if self._is_over:  # while it was being started
        process.terminate()
      if cores:
        os.sched_setaffinity(process.pid, cores)
      status = process.wait()
    self._running.discard(process)
    return status


class Budget:
  """The time left, and the time that a run needs: that of the last run, or the expected one.

  Args:
    seconds: the time from now on; None for no limit.
  """

  def __init__(self, seconds: float | None):
    self._end = None if seconds is None else time.monotonic() + seconds
    self._took: dict[tuple, float] = {}  # the seconds of the last run of each kind

  @property
  def left(self) -> float | None:
    return None if self._end is None else self._end - time.monotonic()

  def fits(self, task: Task) -> bool:
    """Whether a run can end in time."""
    if self._end is None:
      return True
    expected = self._took.get(_kind_of(task), task.entry.seconds)
    return expected <= self.left

  def note(self, task: Task, seconds: float) -> None:
    """Notes how long a run took; the next run of its kind is expected to take as long."""
    self._took[_kind_of(task)] = seconds


def _kind_of(task: Task) -> tuple[str, bool, bool]:
  """Returns the model of a run, and whether it deploys or ships another's network."""
  entry = task.entry
  return entry.label.partition('_')[0], bool(entry.deploys), bool(entry.ships)


class Schedule:
  """Hands out runs in order, each once the run that it needs has ended well. Thread-safe.

  Args:
    tasks: the runs in order.
    fits: whether there is time for a run; otherwise it is not started.
  """

  def __init__(self, tasks: Sequence[Task], fits: Callable[[Task], bool] = lambda task: True):
    self.pending, self._fits = list(tasks), fits
    self._state: dict[tuple, bool | None] = {}  # by key: whether it ended well; None while it runs
    self._changed = threading.Condition()

  def take(self) -> Task | None:
    """Returns the next run, waiting for the runs that it needs; None if no more can start."""
    with self._changed:
      while True:
        self._drop_what_needs_a_failure()
        for task in self.pending:
          if (not task.needs or self._state.get(task.needs)) and self._fits(task):
            self.pending.remove(task)
            self._state[task.place] = None
            return task
        if None not in self._state.values():
          return None
        self._changed.wait()

  def _drop_what_needs_a_failure(self) -> None:
    for task in tuple(self.pending):
      if task.needs and self._state.get(task.needs) is False:
        self.pending.remove(task)
        self._state[task.place] = False
        print(f'  {task.entry.label}, seed {task.seed}: {task.entry.needs} failed', flush=True)

  def ended(self, task: Task, *, well: bool) -> None:
    with self._changed:
      self._state[task.place] = well
      self._changed.notify_all()

  @property
  def all_well(self) -> bool:
    """Whether every run ended well, and none was kept from starting by a failure."""
    return all(self._state.values())


def train(
  tasks: Sequence[Task],
  runs: pathlib.Path,
  data: str | None,
  jobs: int,
  children: Children,
  seconds: float | None = None,
) -> bool:
  """Trains every unfinished run; returns whether all runs that were started ended well.

  Args:
    tasks: the runs in order of importance.
    runs: the folder of the runs of all pages.
    data: the folder of the data sets; None is tensorflow-datasets' own.
    jobs: the number of runs at a time.
    children: the processes, which a signal stops.
    seconds: the time left. A run that cannot end in it is not started, and runs that still go on at
      its end are saved and stopped.
  """
  budget = Budget(seconds)
  schedule = Schedule(tasks, budget.fits)
  # Two runs that share two cores wait for each other's threads; on macOS they must.
  available = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []

  def work(job: int) -> None:
    while (task := schedule.take()) is not None:
      folder, begun = (runs / task.folder).absolute(), time.monotonic()
      status = 0
      if not (_directory(task, folder) / task.entry.result).exists():
        status = _launch(task, folder, data, set(available[job::jobs]), children)
        if status == 0:
          budget.note(task, time.monotonic() - begun)
      schedule.ended(task, well=status == 0)

  alarm = threading.Timer(seconds or 0, children.end)
  alarm.daemon = True
  if seconds is not None:
    alarm.start()
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    for future in [pool.submit(work, job) for job in range(jobs)]:
      future.result()
  alarm.cancel()
  if seconds is not None:
    left = ', '.join(f'{task.entry.label}/seed{task.seed}' for task in schedule.pending)
    print(f'no time for: {left}' if left else 'all rows are there', flush=True)
  return schedule.all_well


def _directory(task: Task, runs: pathlib.Path) -> pathlib.Path:
  return runs / task.entry.label / f'seed{task.seed}'


def _launch(task: Task, runs, data, cores, children) -> int | None:
  command = [sys.executable, *command_of(task.entry, task.seed, runs, data)]
  log = _directory(task, runs).with_suffix('.log')
  log.parent.mkdir(parents=True, exist_ok=True)
  print(*command[1:], flush=True)
  status = children.run(command, cores, log)
  if status:
    print(f'  ended with status {status}: see {log}', flush=True)
  return status
