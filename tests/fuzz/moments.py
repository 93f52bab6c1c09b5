"""SIGKILL at chosen moments of a run: in compilation, in a checkpoint, a cut, an event, at the end.

A moment is a function of the package; the process is killed as the function is entered or left for
the n-th time, by a process that knows nothing else. Run again to its end, every figure must be
equal to the bit to that of a run left alone.
"""

import dataclasses
import itertools
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import damage

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A cut at once with what L-OBS removes, so that one run has each kind of moment.
ARGUMENTS = (
  '--config=configs/quickstart.py',
  "--config.events=('lobs',)",
  '--config.epochs=6.0',
  '--config.lobs.at_epochs=3.0',
  '--config.lobs.batches=5',
  '--config.lobs.target=0.2',
  '--config.prune.begin_epochs=3.0',
  '--config.prune.target=0.2',
  '--config.log.checkpoint_every_epochs=1.0',
)
COMPILING = 'compiling'


@dataclasses.dataclass(frozen=True)
class Moment:
  """When a process is killed.

  Attributes:
    kind: what a person would call it.
    where: the function, as module:name or module:Class.name; COMPILING for XLA's compiler.
    number: of the call, from 1.
    leaving: as the function is left, and not as it is entered.
  """

  kind: str
  where: str
  number: int
  leaving: bool = False

  def __str__(self):
    return f'{self.kind}: {self.where} {"left" if self.leaving else "entered"}, call {self.number}'


EXPERIMENT = 'sparsejax.experiment'
_WRITTEN = f'{EXPERIMENT}.checkpoint:_digests'  # the arrays are there, the manifest is not
_MOVED = f'{EXPERIMENT}.checkpoint:_remove'  # the new one is committed, an old one goes
_NOTED = f'{EXPERIMENT}.files:write_json'
_CUT = f'{EXPERIMENT}.train:Trainer._measure_cut'
_EVENT = f'{EXPERIMENT}.events:happen'
_SAVE = f'{EXPERIMENT}.checkpoint:save'
_END = f'{EXPERIMENT}.finish:_keep'
_PICTURE = f'{EXPERIMENT}.finish:_draw'
_SUMMARY = f'{EXPERIMENT}.finish:summarise'

MOMENTS = (
  *(Moment('compilation', COMPILING, number) for number in (1, 5, 9, 13, 17, 21, 25)),
  *(Moment('checkpoint', _WRITTEN, number) for number in (1, 2, 3, 4, 5)),
  *(Moment('checkpoint', _WRITTEN, number, leaving=True) for number in (1, 3, 5)),
  *(Moment('checkpoint', _SAVE, number, leaving=True) for number in (1, 2, 4)),
  *(Moment('checkpoint', _MOVED, number) for number in (1, 2)),
  *(Moment('checkpoint', _MOVED, number, leaving=True) for number in (1, 2)),
  *(Moment('a note', _NOTED, number) for number in (1, 2, 3, 4, 5, 6, 9)),
  *(Moment('a note', _NOTED, number, leaving=True) for number in (1, 2, 5, 8)),
  *(Moment('a cut', _CUT, 1, leaving) for leaving in (False, True)),
  Moment('a cut', f'{EXPERIMENT}.train:Trainer._segment', 10),
  Moment('a cut', f'{EXPERIMENT}.train:Trainer._segment', 10, leaving=True),
  *(Moment('an event', _EVENT, 1, leaving) for leaving in (False, True)),
  Moment('an event', f'{EXPERIMENT}.lobs:prune_layers', 1),
  *(Moment('an event', f'{EXPERIMENT}.lobs:_operate', number) for number in (1, 3)),
  Moment('the end', _SUMMARY, 1),
  Moment('the end', _SUMMARY, 1, leaving=True),
  *(Moment('the end', _END, 1, leaving) for leaving in (False, True)),
  *(Moment('the end', _PICTURE, 1, leaving) for leaving in (False, True)),
  Moment('the end', f'{EXPERIMENT}.checkpoint:write', 6, leaving=True),
)

CHILD = """
import importlib, os, signal, sys
where, number, leaving, *arguments = sys.argv[1:]
calls = 0

def reached():
  global calls
  calls += 1
  if calls == int(number):
    os.kill(os.getpid(), signal.SIGKILL)

if where == 'compiling':
  import jax
  def heard(event, seconds, **_):
    if event.endswith('jaxpr_to_mlir_module_duration'):  # the compiler is next
      reached()
  jax.monitoring.register_event_duration_secs_listener(heard)
else:
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
from sparsejax import launch
sys.exit(launch.main(['launch.py', *arguments]))
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What came of one kill: whether it struck, and what differs from the run left alone."""

  moment: Moment
  struck: bool
  wrong: str


def run(workdir: pathlib.Path, moment: Moment | None = None) -> tuple[int, str]:
  """Runs the experiment in a process of its own, killed at a moment; (status, stderr)."""
  command = [sys.executable, 'launch.py']
  if moment is not None:
    command = [sys.executable, '-c', CHILD, moment.where, str(moment.number), str(moment.leaving)]
  command += [*ARGUMENTS, f'--workdir={workdir}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  return done.returncode, done.stderr


def strike(moment: Moment, folder: pathlib.Path, alone: list[dict]) -> Outcome:
  """Kills a run at a moment, runs it again, and compares it with the run left alone."""
  workdir = folder / 'killed'
  status, _ = run(workdir, moment)
  struck = status == -signal.SIGKILL
  status, stderr = run(workdir)
  if status:
    return Outcome(moment, struck, f'the second start ended with {status}: {stderr[-300:]}')
  found = damage.figures(workdir)
  differ = [i for i, (a, b) in enumerate(itertools.zip_longest(found, alone)) if a != b]
  wrong = f'{len(differ)} lines of {len(alone)} differ, the first is {differ[0]}' if differ else ''
  left = [path.name for path in workdir.rglob('*') if path.name.endswith(('.writing', '.tmp'))]
  return Outcome(moment, struck, wrong or ', '.join(left))


def strikes(moments=MOMENTS):
  """Yields the outcome of a kill at each moment."""
  with tempfile.TemporaryDirectory() as folder:
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', f'{folder}/compiled')
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
    alone = pathlib.Path(folder, 'alone')
    status, stderr = run(alone)
    if status:
      raise RuntimeError(f'the run left alone ended with {status}: {stderr}')
    expected = damage.figures(alone)
    for number, moment in enumerate(moments):
      place = pathlib.Path(folder, str(number))
      place.mkdir()
      yield strike(moment, place, expected)


if __name__ == '__main__':
  count = int(sys.argv[1]) if len(sys.argv) > 1 else len(MOMENTS)
  outcomes = []
  for outcome in strikes(MOMENTS[:: max(len(MOMENTS) // count, 1)]):
    outcomes.append(outcome)
    print(
      f'{outcome.moment}: {"struck" if outcome.struck else "never came"} {outcome.wrong}',
      flush=True,
    )
  wrong = sum(bool(outcome.wrong) for outcome in outcomes)
  print(f'{sum(o.struck for o in outcomes)} kills, {wrong} wrong')
