"""The runs of pages: which, in which order, each a process of its own that stops when asked to."""

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

GPU = 'GPU'  # the tier of rows for a GPU alone


class Task(NamedTuple):
  """One run: a row's seed, in a directory below the folder of its page."""

  folder: str
  entry: Entry
  seed: int

  @property
  def place(self) -> tuple[str, str, int]:
    """What tells runs apart: rows of two pages may be the same one."""
    return self.folder, self.entry.label, self.seed

  @property
  def needs(self) -> tuple[str, str, int] | None:
    """The place of the run that must have ended well before this one begins."""
    return (self.folder, self.entry.needs, self.seed) if self.entry.needs else None


def plan(chosen: Sequence[tuple[str, str]], *, gpu: bool) -> list[Task]:
  """Returns the runs in the order of their worth: by tier, then seed, then row.

  Args:
    chosen: of each page its name, and a regular expression over its rows. What those need is added.
    gpu: whether there is one. Its rows come first then; without one they are left out.
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
  """The row, the row that it needs, what that needs, and so on."""
  while entry is not None:
    yield entry
    entry = rows.get(entry.needs)


def command_of(entry: Entry, seed: int, runs: pathlib.Path, data: str | None) -> list[str]:
  """Returns what runs a row's seed, in a directory below `runs`, after the name of a Python."""
  runs = runs.absolute()
  workdir = [f'--workdir={runs / entry.label / f"seed{seed}"}']
  place = [str(pathlib.Path(data).absolute())] if data else []
  if entry.deploys:
    source = runs / entry.deploys / f'seed{seed}'
    command = ['-m', 'sparsejax.deploy', f'--run={source}', *entry.overrides, *workdir]
    return command + [f'--data_dir={path}' for path in place]
  command = [entry.program, f'--config={entry.config}', *entry.overrides]
  if entry.trunk:
    command.append(f'--config.init_from={runs / entry.trunk / f"seed{seed}"}')
  command += [f'--config.seed={seed}', *workdir]
  return command + [f'--config.data.dir={path}' for path in place]


def has_gpu() -> bool:
  """Whether JAX finds a GPU; asked in a process of its own, which gives it back."""
  ask = 'import jax; print(jax.default_backend())'
  found = subprocess.run(
    [sys.executable, '-c', ask], capture_output=True, text=True, process_group=0
  )
  return found.stdout.strip() == 'gpu'


class Children:
  """The processes under way; what would end this one in its block ends them first.

  Each saves and ends; then SystemExit with 128 and the signal's number leaves the block.
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
    """Has those under way save and end; no other is begun."""
    self._is_over = True
    for process in tuple(self._running):
      process.terminate()

  def run(self, command: Sequence[str], cores: set[int], log: pathlib.Path) -> int | None:
    """Returns the status with which a command ended; None where it is not to begin any more.

    Args:
      command: run in the root of the project.
      cores: that it may use; all where there are none.
      log: what it says is added there.
    """
    with log.open('a') as said:
      with self._lock:
        if self._is_over:
          return None
        # A group of its own: Ctrl-C reaches it through `_stop` alone, once. A session of its own
        # would share the processor as if nobody had been nice.
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
  """How much time is left, and what a run takes of it: what it took before, or what is expected.

  Args:
    seconds: from now on; None is without end.
  """

  def __init__(self, seconds: float | None):
    self._end = None if seconds is None else time.monotonic() + seconds
    self._took: dict[str, float] = {}  # by model: of its last run

  @property
  def left(self) -> float | None:
    return None if self._end is None else self._end - time.monotonic()

  def fits(self, task: Task) -> bool:
    """Whether a run can end in time."""
    if self._end is None:
      return True
    expected = self._took.get(_model_of(task), task.entry.seconds)
    return expected <= self.left

  def note(self, task: Task, seconds: float) -> None:
    """Notes how long a run took; the next one of its model will take as long."""
    self._took[_model_of(task)] = seconds


def _model_of(task: Task) -> str:
  return task.entry.label.partition('_')[0]


class Schedule:
  """Hands out runs in their order, each when what it needs has ended well. For several threads.

  Args:
    tasks: in their order.
    fits: whether there is time for one; without it, it is not begun.
  """

  def __init__(self, tasks: Sequence[Task], fits: Callable[[Task], bool] = lambda task: True):
    self.pending, self._fits = list(tasks), fits
    self._state: dict[tuple, bool | None] = {}  # by place: ended well, or not; None while it runs
    self._changed = threading.Condition()

  def take(self) -> Task | None:
    """Returns the next run, waiting for those that it needs; None when no more can be begun."""
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
    """Whether every run that was begun, or could not be, ended well."""
    return all(self._state.values())


def train(
  tasks: Sequence[Task],
  runs: pathlib.Path,
  data: str | None,
  jobs: int,
  children: Children,
  seconds: float | None = None,
) -> bool:
  """Trains every run that is not finished yet; returns whether all that were begun ended well.

  Args:
    tasks: in the order of their worth.
    runs: the folder of the runs of all pages.
    data: the folder of the data sets; None is tensorflow-datasets' own.
    jobs: runs at a time.
    children: that a signal stops.
    seconds: that there are. A run that can't end in them is not begun, and what is under way then
      is saved and stopped.
  """
  budget = Budget(seconds)
  schedule = Schedule(tasks, budget.fits)
  # Two runs that share two cores wait for each other's threads; on macOS they must.
  available = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []

  def work(job: int) -> None:
    while (task := schedule.take()) is not None:
      folder, begun = (runs / task.folder).absolute(), time.monotonic()
      status = 0
      if not (_directory(task, folder) / 'summary.json').exists():
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
