"""The command's own process: starts workers, replaces dead ones, shows the search's progress."""

import contextlib
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from optuna.exceptions import StorageInternalError
from rich.console import Console
from rich.live import Live

from sparsejax.experiment.machine import files
from sparsejax.experiment.terminal.numbers import duration
from sparsejax.experiment.terminal.say import complain, say
from sparsejax.internal import signals
from sparsejax.search import search_folder, view
from sparsejax.search.study import Study, machine, worker_name

PERIOD = 1.0  # seconds between two looks at the workers
ATTEMPTS = 3  # starts in a row that reach no trial, or get no further because of the disk
PATIENCE = 120.0  # seconds that workers get to save in once they are asked to end


class Supervisor:
  """Keeps a number of workers at work until every slot is done.

  Args:
    study: the study of the search.
    folder: the folder of the search.
    command: the command line that starts a worker.
    workers: the number of workers.
  """

  def __init__(self, study: Study, folder: pathlib.Path, command: Sequence[str], *, workers: int):
    self.study, self.folder, self._command = study, folder, command
    self._workers: list[subprocess.Popen | None] = [None] * workers
    self._in_vain = [0] * workers
    self._notes: list[str] = []
    self._shown = self._shown_best = ''
    self._signal: int | None = None
    self._is_done = False
    self._console = Console()

  def run(self) -> int:
    """Returns the exit status: 0 when every slot is done and some trial could be trained."""
    with signals.handled(self._note_signal):
      return self._run()

  def _run(self) -> int:
    (self.folder / search_folder.LOGS).mkdir(exist_ok=True)
    self._release_dead_of_this_machine()
    try:
      with self._live() as live:
        while not self._is_done and self._signal is None:
          try:
            self._look_after_workers()
            self._show(live)
            self._is_done = self.study.is_over
            if max(self._in_vain) >= ATTEMPTS and not self._is_any_at_work():
              return self._give_up(self._in_vain.index(max(self._in_vain)))
          except StorageInternalError as error:  # the database is away for a while
            self._note_once(f'the study cannot be reached: {_first_line(error)}')
          if not self._is_done:
            time.sleep(PERIOD)
    finally:
      self._end_workers()
    if self._signal is not None:
      complain(f'sweep: {signal.Signals(self._signal).name}: give the same command to go on')
      return 128 + self._signal
    return self._show_result()

  def _note_signal(self, number, frame):
    del frame
    self._signal = number

  def _live(self):
    if self._console.is_terminal:
      return Live(console=self._console, transient=True)
    return contextlib.nullcontext()

  def _release_dead_of_this_machine(self) -> None:
    """Gives back trials of workers that a killed command left behind and that are dead."""
    workers = {
      trial.user_attrs.get('worker')
      for trial in self.study.trials_by_slot().values()
      if trial.user_attrs
    }
    dead = [
      worker
      for worker in workers
      if worker and worker.rpartition(':')[0] == machine() and not _is_alive(worker)
    ]
    self.study.release_dead(dead)

  def _look_after_workers(self) -> None:
    for index, process in enumerate(self._workers):
      if process is not None and process.poll() is None:
        continue
      if process is not None:
        self._note_end(index, process)
      if self.study.is_over:
        return
      self._workers[index] = self._start(index)
    self.study.release_dead()

  def _note_end(self, index: int, process: subprocess.Popen) -> None:
    name = worker_name(process.pid)
    lost = self.study.release_dead([name])
    if process.returncode == 0:
      return
    # After any other end the trial's deaths are counted, not the worker's.
    is_disk_error = process.returncode == search_folder.DISK_FAILED
    got_on = self.study.has_progressed(name) if is_disk_error else self.study.has_worked(name)
    self._in_vain[index] = 0 if got_on else self._in_vain[index] + 1
    how = f'status {process.returncode}'
    if process.returncode < 0:
      how = signal.Signals(-process.returncode).name
    gone_on = ', '.join(str(trial.user_attrs.get('directory')) for trial in lost)
    text = f'worker {index} ended by {how}' + (f'; {gone_on} goes on' if lost else '')
    self._note(text + ('' if self.study.is_over else '; another starts, which takes some seconds'))

  def _is_any_at_work(self) -> bool:
    """Returns whether a live worker has had a trial: the others may be waiting only for it."""
    alive = [process for process in self._workers if process is not None and process.poll() is None]
    return any(self.study.has_worked(worker_name(process.pid)) for process in alive)

  def _start(self, index: int) -> subprocess.Popen:
    with self._log(index).open('a') as log:
      process = subprocess.Popen(
        self._command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=os.environ | environment(index, len(self._workers), gpus()),
        start_new_session=True,  # ^C must reach only this process, which asks the workers to save
      )
    _pin(process.pid, index, len(self._workers))
    return process

  def _log(self, index: int) -> pathlib.Path:
    return self.folder / search_folder.LOGS / f'{platform.node()}-{index}.log'

  def _end_workers(self) -> None:
    """Asks the workers to save and end, and kills those that have not ended after a while."""
    alive = [process for process in self._workers if process is not None and process.poll() is None]
    for process in () if self._is_done else alive:  # once all is done, workers end by themselves
      process.terminate()
    end = time.monotonic() + PATIENCE
    for process in alive:
      try:
        process.wait(max(end - time.monotonic(), 0.1))
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with contextlib.suppress(StorageInternalError, OSError):  # their leases run out by themselves
      self.study.release_dead(stopped=[worker_name(process.pid) for process in alive])

  def _give_up(self, index: int) -> int:
    log = self._log(index)
    lines = log.read_text().strip().splitlines() if log.exists() else []
    last = lines[-1].removeprefix('sweep: ') if lines else ''
    complain(f'sweep: worker {index} gets no further: {last}; {log}')
    return 1

  def _note(self, text: str) -> None:
    self._notes.append(text)
    if not self._console.is_terminal:
      say(text)

  def _note_once(self, text: str) -> None:
    if self._notes[-1:] != [text]:
      self._note(text)

  def _show(self, live: Live | None) -> None:
    now = view.status(self.study)
    if live is not None:
      live.update(view.picture(self.study, now, self._notes))
    if now.line == self._shown:
      return
    self._shown = now.line
    files.write_json(self.folder / search_folder.TRIALS, view.records(self.study))
    if live is not None:
      return
    say(f'{now.line}; time left {duration(now.seconds_left)}')
    if (best := view.best_line(self.study, now)) != self._shown_best:
      self._shown_best = best
      say(best)

  def _show_result(self) -> int:
    now = view.status(self.study)
    say(f'{now.line}; {self.folder}')
    files.write_json(self.folder / search_folder.TRIALS, view.records(self.study))
    for trial in now.best if len(now.best) > 1 else view.ranking(self.study)[: view.BEST]:
      say(f'  {view.describe(self.study, trial)}')
    if constraints := view.broken_by_all(self.study):
      say(f'no finished trial satisfies {constraints}: the nearest comes first')
    for trial in self.study.trials_by_slot().values():
      if 'error' in trial.user_attrs:
        where = trial.user_attrs.get('directory') or 'a place in a later rung'
        say(f'  failed: {where}: {trial.user_attrs["error"]}')
    if now.finished + now.stopped:
      return 0
    complain('sweep: no trial could be trained')
    return 1


def _first_line(error: BaseException) -> str:
  return str(error.__cause__ or error).strip().splitlines()[0]


def _is_alive(worker: str) -> bool:
  try:
    os.kill(int(worker.rpartition(':')[2]), 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    return True
  return True


def gpus() -> list[str]:
  """Returns the names of the GPUs that this process may use, as in CUDA_VISIBLE_DEVICES."""
  visible = os.environ.get('CUDA_VISIBLE_DEVICES')
  if visible is not None:
    return [name for name in visible.split(',') if name]
  if shutil.which('nvidia-smi') is None:
    return []
  listed = subprocess.run(['nvidia-smi', '-L'], capture_output=True, text=True, check=False)
  count = sum(line.startswith('GPU ') for line in listed.stdout.splitlines())
  return [str(index) for index in range(count)]


def environment(index: int, workers: int, devices: list[str]) -> Mapping[str, str]:
  """Returns a worker's own environment variables, so that GPUs are shared evenly.

  Example:
    >>> environment(2, 4, ['0', '1'])
    {'CUDA_VISIBLE_DEVICES': '0', 'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.45'}
    >>> environment(1, 2, ['0', '1', '2', '3', '4'])
    {'CUDA_VISIBLE_DEVICES': '2,3'}
    >>> environment(1, 2, [])
    {}
  """
  if not devices:
    return {}
  if workers <= len(devices):
    share = len(devices) // workers  # equal shares, since any worker must be able to fit a batch
    return {'CUDA_VISIBLE_DEVICES': ','.join(devices[index * share : (index + 1) * share])}
  share = 0.9 / -(-workers // len(devices))
  own = devices[index % len(devices)]
  return {'CUDA_VISIBLE_DEVICES': own, 'XLA_PYTHON_CLIENT_MEM_FRACTION': f'{share:.2f}'}


def _pin(pid: int, index: int, workers: int) -> None:
  """Gives a worker its own cores: workers that share some wait for each other's threads."""
  if not hasattr(os, 'sched_setaffinity'):
    return
  available = sorted(os.sched_getaffinity(0))
  own = available[index % len(available) :: workers]
  with contextlib.suppress(ProcessLookupError):
    os.sched_setaffinity(pid, own)
