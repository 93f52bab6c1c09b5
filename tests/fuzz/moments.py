"""SIGKILL at chosen moments of the commands: the same command goes on to the same figures.

A moment is a function of the package: the process is killed as it enters or leaves the function for
the n-th time. The command lines are a person's: what kills is loaded by Python as it starts.
"""

import itertools
import os
import pathlib
import random
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import command
import damage
import settings
import signals

# A cut at once with what L-OBS removes, so that one run has each kind of moment.
EVENTFUL = {'events': "('lobs',)", 'lobs.density': '0.2', 'prune.density': '0.2'}
OF_LAUNCH = EVENTFUL | {
  'epochs': '6.0',
  'lobs.at_epochs': '3.0',
  'lobs.batches': '5',
  'prune.begin_epochs': '3.0',
  'log.checkpoint_every_epochs': '1.0',
}
OF_SEARCH = EVENTFUL | {
  'lobs.at_epochs': '0.5',
  'lobs.batches': '1',
  'log.checkpoint_every_epochs': '0.5',
}
COMPILING = 'compiling'  # in the place of a function: a moment after XLA's compiler was called
NEVER = 'never came'
LAUNCH, SWEEP, WORKER = 'launch.py', 'sparsejax.sweep', 'sparsejax.sweep_worker'
REPORT, DEPLOY, SHIP = 'sparsejax.report', 'sparsejax.deploy', 'sparsejax.ship'
COMMANDS = {
  **{LAUNCH: 'launch', SWEEP: 'sweep', WORKER: 'sweep', REPORT: 'report', DEPLOY: 'deploy'},
  SHIP: 'ship',
}
ALONE = 'one worker'  # is killed, and the command goes on; otherwise a worker's command dies too


class Case(NamedTuple):
  """When a process is killed.

  Attributes:
    process: which one, by the word of its command line that no other has.
    kind: what a person would call the moment.
    where: the function, as module:name or module:Class.name, or COMPILING.
    number: of the call, from 1.
    leaving: as the function is left, and not as it is entered.
  """

  process: str
  kind: str
  where: str
  number: int = 1
  leaving: bool = False

  @property
  def command(self) -> str:
    return COMMANDS[self.process]


def _both(process: str, kind: str, where: str, *numbers: int) -> Iterator[Case]:
  """Yields the moments before and after each of some calls of a function."""
  for number in numbers:
    for leaving in (False, True):
      yield Case(process, kind, where, number, leaving)


def _moments() -> Iterator[Case]:
  its = 'sparsejax.experiment'
  for process, numbers in ((LAUNCH, range(1, 26, 4)), (WORKER, (2, 9, 16)), (DEPLOY, (1, 4, 7))):
    yield from (Case(process, 'compilation', COMPILING, number) for number in numbers)
  for process, calls in ((LAUNCH, (1, 3, 6)), (WORKER, (1, 2, 5)), (DEPLOY, (1, 2))):
    # The arrays are there and the manifest is not; it is, and the folder is hidden; it is whole.
    yield from _both(process, 'a checkpoint', f'{its}.rundir.checkpoint:_digests', *calls)
    yield Case(process, 'a checkpoint', f'{its}.rundir.checkpoint:write', calls[-1], leaving=True)
  # The new one is committed, and an old one goes.
  yield from _both(LAUNCH, 'a checkpoint', f'{its}.rundir.checkpoint:_remove', 1)
  for process, calls in ((LAUNCH, (1, 2, 5)), (WORKER, (1, 4)), (DEPLOY, (1, 2))):
    yield from _both(process, 'a note', f'{its}.machine.files:write_json', *calls)
  for process, call in ((LAUNCH, 4), (WORKER, 2)):
    yield from _both(process, 'a cut', f'{its}.training.train:Trainer._segment', call)
    yield from _both(process, 'a cut', f'{its}.training.train:Trainer._measure_cut', 1)
    yield from _both(process, 'an event', f'{its}.step.events:apply_event', 1)
    yield Case(process, 'an event', f'{its}.step.lobs_event:prune_layers')
    yield Case(process, 'an event', f'{its}.step.lobs_event:_operate', 2)
  for process in (LAUNCH, WORKER, DEPLOY):
    for name in ('summarise', '_write_results', '_draw'):
      yield from _both(process, 'the end', f'{its}.outcome.finish:{name}', 1)
  yield from _both(SWEEP, 'the study', 'sparsejax.search.study:Study.plan', 1)
  yield from _both(SWEEP, 'the study', 'sparsejax.search.study:Study._add', 1, 2)
  yield from _both(SWEEP, 'the study', f'{its}.machine.files:write_atomically', 1)
  yield from _both(SWEEP, 'the study', 'sparsejax.search.supervisor:Supervisor._show_result', 1)
  yield from _both(WORKER, 'the study', 'sparsejax.search.study:Study._take', 1, 2)
  yield from _both(WORKER, 'the study', 'sparsejax.search.study:Study.finish', 1, 2)
  yield from _both(WORKER, ALONE, 'sparsejax.search.study:Study._begin', 1)
  yield from _both(WORKER, ALONE, f'{its}.rundir.checkpoint:_digests', 1, 2)
  yield from _both(WORKER, ALONE, f'{its}.outcome.finish:_write_results', 1)
  yield from _both(WORKER, ALONE, 'sparsejax.search.study:Study.finish', 1)
  yield from _both(REPORT, 'reading', 'sparsejax.reports.records.collect:_read', 1, 2)
  yield from _both(REPORT, 'a figure', 'sparsejax.reports.figures.dress:save', 1, 3)
  yield from _both(REPORT, 'a table', 'sparsejax.reports.text.tables:row', 1, 2)
  yield from _both(REPORT, 'the end', 'sparsejax.reports.page:page', 1)
  yield from (Case(SHIP, 'compilation', COMPILING, number) for number in (1, 4, 7))
  yield from _both(SHIP, 'a file', 'sparsejax.delivery.shipment:_write', 1)
  yield from _both(SHIP, 'a file', 'sparsejax.delivery.folder:_make_hidden', 1)
  yield from _both(SHIP, 'the end', 'sparsejax.delivery.shipment:_measure', 1)
  yield from _both(SHIP, 'the end', f'{its}.machine.files:write_json', 1)


# What Python runs as it starts: in the process that is meant it waits for the moment.
HOOK = """
import importlib, os, pathlib, signal, sys, threading

def arm(process, kind, where, number, leaving, struck):
  calls = 0

  def strike():
    pathlib.Path(struck).touch()
    if process == 'sparsejax.sweep_worker' and kind != 'one worker':
      os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)

  def reached(strike=strike):
    nonlocal calls
    calls += 1
    if calls == int(number) and not os.path.exists(struck):
      strike()

  def heard(event, seconds, **_):
    if event.endswith('jaxpr_to_mlir_module_duration'):  # the compiler is next
      reached(threading.Timer(0.002, strike).start)

  if where == 'compiling':
    import jax
    jax.monitoring.register_event_duration_secs_listener(heard)
    return
  module, _, path = where.partition(':')
  holder = importlib.import_module(module)
  *parents, name = path.split('.')
  for parent in parents:
    holder = getattr(holder, parent)
  real = getattr(holder, name)

  def killing(*args, **settings):
    if leaving == 'False':
      reached()
    found = real(*args, **settings)
    if leaving == 'True':
      reached()
    return found

  setattr(holder, name, killing)

moment = os.environ['SPARSEJAX_FUZZ_MOMENT'].split()
if moment[0] in sys.orig_argv:
  arm(*moment)
"""


class World(signals.World):
  """What the commands read, and how each ends if it is left alone.

  Args:
    folder: to work in; it must be empty.
  """

  rounds = 1  # how long it takes does not matter

  def __init__(self, folder: pathlib.Path):
    super().__init__(folder)
    self.folder, self.hook = folder, folder / 'hook'
    self.hook.mkdir()
    (self.hook / 'sitecustomize.py').write_text(HOOK)

  def argv(self, name: str) -> list[str]:
    if name == 'launch':
      return self._launch('quickstart', self.place, **OF_LAUNCH)
    return damage.search_in(self.place, **OF_SEARCH) if name == 'sweep' else super().argv(name)


def cases(count: int, seed: int) -> list[Case]:
  """Returns a number of moments; each kind of each command comes before any comes again."""
  chance = random.Random(seed)
  every = list(_moments())
  chance.shuffle(every)
  seen: dict[Any, int] = {}
  turns = []
  for case in every:
    key = case.command, case.kind
    turns.append(seen.setdefault(key, 0))
    seen[key] += 1
  order = sorted(range(len(every)), key=lambda index: turns[index])
  return [every[index] for index in order[:count]]


def attempt(world: World, case: Case, number: int) -> settings.Verdict:
  """Kills a command at a moment, then runs it again to its end."""
  world.begin(case.command)
  struck = world.folder / f'struck-{number}'
  moment = ' '.join([*(str(x).replace(' ', '_') for x in case), str(struck)])
  environment = os.environ | {'PYTHONPATH': str(world.hook), 'SPARSEJAX_FUZZ_MOMENT': moment}
  if case.where == COMPILING:  # nothing but a cache of its own has it compile
    environment['JAX_COMPILATION_CACHE_DIR'] = str(world.folder / f'compiled-{number}')
  subprocess.run(
    world.argv(case.command),
    cwd=command.ROOT,
    env=environment,
    capture_output=True,
    check=False,
    timeout=command.SLOW,
  )
  return world.goes_on(case.command, 'equal' if struck.exists() else NEVER)


def tried(
  count: int, seed: int, folder: pathlib.Path, *, until: float = float('inf'), skip: int = 0
) -> Iterator[tuple[Case, settings.Verdict]]:
  """Yields every case after those to skip, and its result, until time is up."""
  world = World(folder)
  numbered = itertools.islice(enumerate(cases(count, seed)), skip, None)
  for number, case in command.before(until, numbered):
    yield case, attempt(world, case, number)
