"""Signals at random moments of the commands: the same command goes on to the same figures."""

import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import command
import damage
import settings

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
COMMANDS = ('launch', 'sweep', 'report', 'deploy', 'ship')
UNFINISHED = ('.writing', '.removing', '.tmp')  # end the names of what is not whole
TOO_LATE = 'too late'  # equal too, but the command had ended before the signal came


class Case(NamedTuple):
  """A command, and the signal that it is sent at a share of the time that it takes alone."""

  command: str
  signal: str
  share: float


class World:
  """A folder with what the commands read, and how each ends if it is left alone.

  Args:
    folder: to work in; it must be empty.
  """

  rounds = 2  # once to compile, once to be timed: later ones find their programs in the cache

  def __init__(self, folder: pathlib.Path):
    self.sources, self.place = folder / 'sources', folder / 'place'
    self.sources.mkdir(parents=True)
    for base in ('quickstart', 'lenet300_sparse_vd'):
      argv = self._launch(base, self.sources / base)
      subprocess.run(argv, cwd=command.ROOT, capture_output=True, check=True)
    self.wanted: dict[str, Any] = {}
    self.took: dict[str, float] = {}

  def _launch(self, base: str, workdir: pathlib.Path, **changes: str) -> list[str]:
    given = settings.flags(base, changes)
    return [sys.executable, 'launch.py', *given, f'--workdir={workdir}']

  def argv(self, name: str) -> list[str]:
    """Returns the command line of a command, which works in `place`."""
    if name == 'launch':
      longer = {'epochs': '40.0', 'log.every_steps': '1'}
      return self._launch('quickstart', self.place, **longer)
    if name == 'sweep':
      return damage.search_in(self.place)
    module = [sys.executable, '-m', f'sparsejax.{name}']
    if name == 'report':
      return [*module, str(self.sources), f'--out={self.place}']
    if name == 'ship':
      run, out = self.sources / 'quickstart', self.place / 'out'
      return [*module, f'--run={run}', f'--out={out}', *damage.SHIP_FLAGS]
    run = self.sources / 'lenet300_sparse_vd'
    return [*module, f'--run={run}', f'--workdir={self.place}', '--threshold=3.0']

  def figures(self, name: str) -> Any:
    """Returns what a command has written, without what differs between two equal runs."""
    if name == 'report':
      return {p.name: p.read_bytes() for p in self.place.iterdir() if p.suffix == '.csv'}
    if name == 'ship':
      return damage.shipped(self.place / 'out')
    runs = sorted((self.place / 'runs').iterdir()) if name == 'sweep' else [self.place]
    return [damage.figures(run) for run in runs]

  def alone(self, name: str) -> Any:
    """Returns the figures of a command that no signal came to."""
    if name not in self.wanted:
      for _ in range(self.rounds):
        shutil.rmtree(self.place, ignore_errors=True)
        begun = time.monotonic()
        subprocess.run(self.argv(name), cwd=command.ROOT, capture_output=True, check=True)
        self.took[name] = time.monotonic() - begun
      self.wanted[name] = self.figures(name)
    return self.wanted[name]

  def begin(self, name: str) -> None:
    """Empties the place that a command works in, and knows how it ends alone."""
    self.alone(name)
    shutil.rmtree(self.place, ignore_errors=True)

  def is_done(self, name: str) -> bool:
    """Whether a command has written all that it writes when it is left alone."""
    try:
      return self.figures(name) == self.alone(name)
    except OSError:
      return False

  def goes_on(self, name: str, kind: str) -> settings.Verdict:
    """Runs a command that was stopped to its end; returns a verdict of `kind`, or what is wrong."""
    again = subprocess.run(
      self.argv(name), cwd=command.ROOT, capture_output=True, text=True, check=False
    )
    if again.returncode:
      said = again.stderr[-900:]
      return settings.Verdict('wrong', f'status {again.returncode} of the same command again', said)
    if (found := self.figures(name)) != self.alone(name):
      said = json.dumps(found, default=str)[:600]
      return settings.Verdict('wrong', 'other figures than those of a command left alone', said)
    left = [p for p in self.place.rglob('*') if p.name.endswith(UNFINISHED)]
    if cut := [p.name for p in left if not (p / 'shipped.json').exists()]:  # a whole one may stay
      return settings.Verdict('wrong', f'it left {cut[0]}')
    return settings.Verdict(kind)


def cases(count: int, seed: int) -> Iterator[Case]:
  """Yields a number of cases; every signal at every command comes before any comes again.

  Of any four that follow each other, beginning with the first, each has a command and a signal of
  its own, so that a run that is stopped early has tried all of both.
  """
  chance = random.Random(seed)
  for number in range(count):
    turn, place = divmod(number, len(COMMANDS))
    name, sent = COMMANDS[place], SIGNALS[(turn + place) % len(SIGNALS)]
    yield Case(name, sent.name, round(chance.uniform(0.02, 0.98), 3))


def attempt(world: World, case: Case) -> settings.Verdict:
  """Sends a command its signal, then runs it again to its end."""
  world.begin(case.command)
  number = signal.Signals[case.signal]
  process = subprocess.Popen(
    world.argv(case.command),
    cwd=command.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    process_group=0,
  )
  time.sleep(case.share * world.took[case.command])
  is_ended = process.poll() is not None
  if not is_ended:
    os.kill(process.pid, number)
  try:
    _, err = process.communicate(timeout=120)
  except subprocess.TimeoutExpired:
    process.kill()
    _, err = process.communicate()
    return settings.Verdict('wrong', 'it did not end after the signal', err[-600:])
  # An interpreter that is ending has given its handlers back: the signal kills, and all is done.
  is_killed_at_end = process.returncode == -number and world.is_done(case.command)
  is_ended = is_ended or process.returncode == 0 or is_killed_at_end
  expected = -number if number == signal.SIGKILL else 128 + number
  if not is_ended and process.returncode != expected:
    return settings.Verdict('wrong', f'status {process.returncode} after {case.signal}', err[-900:])
  if 'Traceback' in err:
    return settings.Verdict('wrong', 'a traceback', err[-900:])
  return world.goes_on(case.command, TOO_LATE if is_ended else 'equal')


def tried(
  count: int, seed: int, folder: pathlib.Path, *, until: float = float('inf'), skip: int = 0
) -> Iterator[tuple[Case, settings.Verdict]]:
  """Yields every case after those to skip, and its result, until time is up."""
  for number in SIGNALS[1:]:  # under nohup this process ignores some, and its children would too
    if signal.getsignal(number) == signal.SIG_IGN:
      signal.signal(number, signal.SIG_DFL)
  world = World(folder)
  for case in command.before(until, itertools.islice(cases(count, seed), skip, None)):
    yield case, attempt(world, case)
