"""The runs of pages: which, in which order, each a process of its own that stops when asked to."""

import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from entries import Entry
from pages import PAGES

ROOT = pathlib.Path(__file__).resolve().parent.parent
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
  found = subprocess.run([sys.executable, '-c', ask], capture_output=True, text=True, check=True)
  return found.stdout.strip() == 'gpu'


class Children:
  """The processes under way; in its block SIGTERM and SIGINT go on to them, and end this one.

  Each saves and ends; then SystemExit with 128 and the signal's number leaves the block.
  """

  def __init__(self):
    self.stopped_by: int | None = None
    self._running: set[subprocess.Popen] = set()
    self._lock = threading.Lock()

  def __enter__(self):
    numbers = (signal.SIGTERM, signal.SIGINT)
    self._before = {number: signal.signal(number, self._stop) for number in numbers}
    return self

  def __exit__(self, *exception):
    for number, handler in self._before.items():
      signal.signal(number, handler)
    if self.stopped_by is not None:
      sys.exit(128 + self.stopped_by)

  def _stop(self, number, frame) -> None:
    del frame
    self.stopped_by = number
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
        if self.stopped_by is not None:
          return None
        # A session of its own: Ctrl-C reaches it through `_stop` alone, once.
        process = subprocess.Popen(
          command, cwd=ROOT, stdout=said, stderr=said, start_new_session=True
        )
        self._running.add(process)
      if self.stopped_by is not None:  # while it was being started
        process.terminate()
      if cores:
        os.sched_setaffinity(process.pid, cores)
      status = process.wait()
    self._running.discard(process)
    return status


class Schedule:
  """Hands out runs in their order, each when what it needs has ended well. For several threads."""

  def __init__(self, tasks: Sequence[Task]):
    self._pending = list(tasks)
    self._state: dict[tuple, bool | None] = {}  # by place: ended well, or not; None while it runs
    self._changed = threading.Condition()

  def take(self) -> Task | None:
    """Returns the next run, waiting for those that it needs; None when there are no more."""
    with self._changed:
      while self._pending:
        for task in self._pending:
          needed = self._state.get(task.needs, None) if task.needs else True
          if needed is not None:
            self._pending.remove(task)
            self._state[task.place] = None if needed else False
            if needed:
              return task
            print(f'  {task.entry.label}, seed {task.seed}: {task.entry.needs} failed', flush=True)
            break
        else:
          self._changed.wait()
      return None

  def ended(self, task: Task, *, well: bool) -> None:
    with self._changed:
      self._state[task.place] = well
      self._changed.notify_all()

  @property
  def all_well(self) -> bool:
    return not self._pending and all(self._state.values())


def train(
  tasks: Sequence[Task], runs: pathlib.Path, data: str | None, jobs: int, children: Children
) -> bool:
  """Trains every run that is not finished yet; returns whether all of them ended well."""
  schedule = Schedule(tasks)
  # Two runs that share two cores wait for each other's threads; on macOS they must.
  available = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []

  def work(job: int) -> None:
    while (task := schedule.take()) is not None:
      status = _launch(task, runs / task.folder, data, set(available[job::jobs]), children)
      schedule.ended(task, well=status == 0)

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    for future in [pool.submit(work, job) for job in range(jobs)]:
      future.result()
  return schedule.all_well


def _launch(task: Task, runs, data, cores, children) -> int | None:
  command = [sys.executable, *command_of(task.entry, task.seed, runs, data)]
  workdir = (runs / task.entry.label / f'seed{task.seed}').absolute()
  if (workdir / 'summary.json').exists():
    return 0
  workdir.parent.mkdir(parents=True, exist_ok=True)
  print(*command[1:], flush=True)
  log = workdir.with_suffix('.log')
  status = children.run(command, cores, log)
  if status:
    print(f'  ended with status {status}: see {log}', flush=True)
  return status
