"""Damaged files of runs, searches, caches and shipments: refused, put aside, or without effect.

What reads one must end with the figures of an undamaged one, or with one line; no file that a
person may still need may be gone, and no figure may be another one in silence.
"""

import contextlib
import csv
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import command
import settings

DEEP = '[' * 100_000 + ']' * 100_000
WAYS = (
  *('empty', 'cut', 'bit', 'zeros', 'missing', 'folder', 'other JSON', 'deep', "another run's"),
  'no permission',
)
# What a command may write anew, or which says nothing of a result.
REWRITTEN = ('progress.json', 'environment.json', 'trials.json', 'trace.png', '.lock', '.identity')
TIMINGS = ('seconds', 'examples_per_second')
RATE = 'scale_by_learning_rate.learning_rate.value'
RUN_FLAGS = {'log.every_steps': '1', 'log.keep_checkpoints': '9'}


class Case(NamedTuple):
  """A file, what was done to it, and which command then reads it.

  Attributes:
    source: the folder that it is of.
    file: its path in there.
    way: one of WAYS.
    reader: which command.
  """

  source: str
  file: str
  way: str
  reader: str


class World:
  """A folder with whole runs, a search and a cache.

  Args:
    folder: to make them in; it must be empty.
    sources: which of them; all where there are none.
  """

  def __init__(self, folder: pathlib.Path, sources: Sequence[str] = ()):
    self.folder, self.whole, self.copies = folder, folder / 'whole', folder / 'copies'
    self.readers: dict[str, dict[str, Callable[[pathlib.Path], Any]]] = {
      'finished': {
        'launch': _launch('quickstart'),
        'report': _report,
        'load': _load,
        'init_from': _init_from,
        'ship': _ship,
      },
      'unfinished': {'launch': _launch('quickstart'), 'report': _report},
      'bayesian': {'deploy': _deploy, 'report': _report, 'load': _load, 'ship': _ship_bayesian},
      'search': {'sweep': _sweep, 'report': _report},
      'cache': {'data': _cache},
      'arrays': {'launch': _arrays},
      'shipment': {'ship': _ship_again, 'load': _load_model_file},
    }
    self.whole.mkdir(parents=True)
    self.found: dict[tuple[str, str], Any] = {}
    made = {
      'finished': _launch('quickstart'),
      'unfinished': _launch('quickstart', stop=2),
      'bayesian': _launch('lenet300_sparse_vd'),
      'search': _sweep,
      'cache': _cache,
      'arrays': _write_arrays,
      'shipment': _ship_again,
    }
    self.readers = {k: v for k, v in self.readers.items() if not sources or k in sources}
    for source in self.readers:
      _must(made[source](self.whole / source))
    _must(_launch('quickstart', **{'seed': '7'})(self.whole / 'another'))

  def cases(self, count: int, seed: int) -> list[Case]:
    """Returns a number of cases, dealt to the readers in turn; all of them if there are fewer."""
    chance = random.Random(seed)
    dealt = [
      (turn, case)
      for source, readers in self.readers.items()
      for reader in readers
      for turn, case in enumerate(self._shuffled(source, reader, chance))
    ]
    return [case for _, case in sorted(dealt, key=lambda one: one[0])[:count]]

  def _shuffled(self, source: str, reader: str, chance: random.Random) -> list[Case]:
    """Returns every case of a reader in random order; files of arrays come late."""
    every = [Case(source, file, way, reader) for file in self.files(source) for way in WAYS]
    # Files of arrays are many and alike: a folder's own files must not drown in them.
    weights = [0.15 if '/arrays/' in case.file else 1.0 for case in every]
    keys = {case: chance.random() ** (1 / w) for case, w in zip(every, weights, strict=True)}
    return sorted(every, key=lambda case: -keys[case])

  def files(self, source: str) -> list[str]:
    """Returns the files of a folder, those of the runs of a search among them."""
    folder = self.whole / source
    found = sorted(path for path in folder.rglob('*') if path.is_file())
    return [str(path.relative_to(folder)) for path in found if path.name != '.lock']

  def undamaged(self, case: Case) -> Any:
    """Returns what a command finds in the whole folder, asked once."""
    key = case.source, case.reader
    if key not in self.found:
      with self.copy(case.source) as folder:
        outcome, figures = self.readers[case.source][case.reader](folder)
        assert not outcome.error, outcome
        assert outcome.status == 0, outcome
        self.found[key] = figures
    return self.found[key]

  @contextlib.contextmanager
  def copy(self, source: str) -> Iterator[pathlib.Path]:
    """A copy of a folder, which is removed afterwards."""
    place = self.copies / source
    shutil.copytree(self.whole / source, place)
    try:
      yield place
    finally:
      shutil.rmtree(self.copies)


def damage(world: World, folder: pathlib.Path, case: Case, chance: random.Random) -> bool:
  """Damages a file; returns whether that changed it."""
  file = folder / case.file
  before = file.read_bytes()
  other = world.whole / 'another' / case.file
  if case.way == 'empty':
    file.write_bytes(b'')
  elif case.way == 'cut':
    file.write_bytes(before[: len(before) // 2])
  elif case.way == 'bit' and before:
    changed, place = bytearray(before), chance.randrange(len(before))
    changed[place] ^= 1 << chance.randrange(8)
    file.write_bytes(changed)
  elif case.way == 'zeros':
    file.write_bytes(bytes(len(before)))
  elif case.way in ('missing', 'folder'):
    file.unlink()
    if case.way == 'folder':
      file.mkdir()
  elif case.way == 'other JSON':
    file.write_text('3' if before[:1] in b'[{' else '{}')
  elif case.way == 'deep':
    file.write_text(DEEP)
  elif case.way == "another run's" and other.is_file():
    shutil.copyfile(other, file)
  elif case.way == 'no permission':
    file.chmod(0)
    return not os.access(file, os.R_OK)  # never so for root
  return not file.is_file() or file.read_bytes() != before


def attempt(world: World, case: Case, seed: int) -> settings.Verdict | None:
  """Damages a file and has a command read it; None where there was no damage.

  The verdict is 'right' (the figures of the whole folder), 'refused', or 'wrong'.
  """
  from sparsejax.experiment.machine import files
  from sparsejax.experiment.rundir import digests

  wanted = world.undamaged(case)
  with world.copy(case.source) as folder:
    if not damage(world, folder, case, random.Random(f'{seed}{case}')):
      return None
    left = folder / case.file
    bytes_left = left.read_bytes() if left.is_file() and os.access(left, os.R_OK) else b''
    # A run without its summary ends anew, and its end makes the digests of its files anew.
    renewed = digests.FILE if left.name == files.SUMMARY else None
    others = {
      path.relative_to(folder): path.read_bytes()
      for path in folder.rglob('*')
      if path.is_file() and path != left and _stays(path) and path.name != renewed
    }
    outcome, figures = world.readers[case.source][case.reader](folder)
    return _judged(case, outcome, figures, wanted, folder, bytes_left, others)


def _stays(path: pathlib.Path) -> bool:
  return path.name not in REWRITTEN and not path.name.startswith('.')


def _is_kept(content: bytes, held: set[bytes]) -> bool:
  """Whether a damaged file is kept as it was, or its end beside what continued from the rest."""
  ends = [one for one in held if one and content.endswith(one)]
  begins = [content[: len(content) - len(end)] for end in ends]
  return any(one.startswith(begin) for begin in begins for one in held)


def _judged(case, outcome, figures, wanted, folder, bytes_left, others) -> settings.Verdict:
  from sparsejax.experiment.rundir import digests

  said = outcome.error[-1500:] or outcome.err[-600:]

  def wrong(why: str) -> settings.Verdict:
    return settings.Verdict('wrong', why, said)

  if outcome.error:
    return wrong('a traceback')
  held = {path.read_bytes() for path in folder.rglob('*') if path.is_file()}
  is_needed = case.source != 'cache' and _stays(pathlib.Path(case.file))  # a cache is made anew
  if bytes_left and is_needed and not _is_kept(bytes_left, held):
    return wrong('the damaged file is gone')
  gone = [
    str(path)
    for path, content in others.items()
    if content not in held and not any(one.startswith(content) for one in held)
  ]
  if gone:
    return wrong(f'{gone[0]} is gone')
  if outcome.status in (1, 2):
    one = [line for line in outcome.lines if 'warning' not in line.lower()[:60]]
    is_logged = all(line[:1] == 'W' for line in one[:-1])
    return settings.Verdict('refused', said=said) if one and is_logged else wrong('no one line')
  if outcome.status != 0:
    return wrong(f'status {outcome.status}')
  is_told = digests.CHANGED in outcome.err
  if figures != wanted and not is_told and not _is_said(case, figures, wanted):
    return wrong('another figure, in silence')
  return settings.Verdict('right')


def _is_said(case: Case, figures: Any, wanted: Any) -> bool:
  """Whether a report with other figures says what is wrong with the run."""
  if case.reader != 'report' or not isinstance(figures, list):
    return False
  names = {row['run'] for row in figures}
  missing = [row for row in wanted if row['run'] not in names]
  changed = [row for row in figures if row not in wanted]
  return all('problems' in row for row in changed) and (not missing or bool(changed))


def _must(found: tuple[command.Outcome, Any]) -> None:
  outcome, _ = found
  assert not outcome.error, outcome.error
  assert outcome.status == 0, outcome


def figures(folder: pathlib.Path) -> Any:
  """A run's summary and lines, without what differs between two equal runs."""
  try:
    summary = json.loads((folder / 'summary.json').read_text())
    lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  except (OSError, ValueError) as error:
    return f'no figures: {error}'
  if not all(isinstance(one, dict) for one in (summary, *lines)):
    return 'no figures: other JSON'
  return [{k: v for k, v in one.items() if k not in TIMINGS} for one in (summary, *lines)]


def _launch(base: str, stop: int = 0, **changes: str):
  """What runs the launch command of four steps in a folder."""

  def read(folder: pathlib.Path):
    from sparsejax import launch
    from sparsejax.experiment import run
    from sparsejax.experiment.terminal.errors import PausedError

    actual = run.run

    def some_steps(*arguments, **options):
      with contextlib.suppress(PausedError):
        return actual(*arguments, **options, watch=lambda line: line['step'] >= stop > 0)

    given = {'epochs': '2.0', **RUN_FLAGS, **changes}
    argv = ['launch', *settings.flags(base, given), f'--workdir={folder}']
    with mock.patch.object(run, 'run', some_steps):
      outcome = command.call(launch.main, argv, folder.parent)
    return outcome, figures(folder) if not stop else None

  return read


def _init_from(folder: pathlib.Path):
  place = folder.parent / 'from'
  found = _launch('quickstart', init_from=str(folder))(place)
  shutil.rmtree(place, ignore_errors=True)
  return found


def _report(folder: pathlib.Path):
  from sparsejax import report
  from sparsejax.reports.figures import drawing

  out = folder.parent / 'out'
  with mock.patch.object(drawing, '_plan_tasks', return_value=()):  # they take most of the time
    outcome = command.call(report.main, ['report', str(folder), f'--out={out}'], folder.parent)
  rows = []
  if (out / 'runs.csv').exists():
    with (out / 'runs.csv').open() as file:
      rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
  shutil.rmtree(out, ignore_errors=True)
  return outcome, rows


def _load(folder: pathlib.Path):
  import jax

  import sparsejax

  found: list[Any] = []

  def main(argv):
    try:
      loaded = sparsejax.load(folder)
    except (ValueError, RuntimeError) as error:  # what it says it raises
      print(str(error), file=sys.stderr)
      return 2
    found.append([leaf.tolist() for leaf in jax.tree.leaves(loaded.variables)])
    return 0

  return command.call(main, ['load'], folder.parent), found


def _deploy(folder: pathlib.Path):
  from sparsejax import deploy

  argv = ['deploy', f'--run={folder}', '--threshold=3.0']
  outcome = command.call(deploy.main, argv, folder.parent)
  return outcome, outcome.out


SHIP_FLAGS = ('--rounds=1', '--bits=4')
OF_SHIPMENT = (
  *('shipment', 'bits', 'validation_accuracy', 'test_accuracy', 'before', 'bytes', 'dense_bytes'),
  *('bytes_by_part', 'theoretical', 'scaling'),
)


def shipped(folder: pathlib.Path) -> Any:
  """Returns a shipment's model file, and the figures that two equal shipments share."""
  from sparsejax.experiment.machine import files

  try:
    told = files.read_json(folder / 'shipped.json')
    return (folder / 'model.sparse').read_bytes(), {name: told[name] for name in OF_SHIPMENT}
  except (OSError, ValueError, KeyError, TypeError) as error:
    return f'no shipment: {error}'


def _ship_to(run: pathlib.Path, out: pathlib.Path, *flags: str) -> command.Outcome:
  from sparsejax import ship
  from sparsejax.delivery import latency

  argv = ['ship', f'--run={run}', f'--out={out}', *(flags or SHIP_FLAGS)]
  with mock.patch.object(latency, 'BLOCK_SECONDS', 1e-9):
    return command.call(ship.main, argv, out.parent)


def _ship(folder: pathlib.Path, *flags: str):
  out = folder.parent / 'shipped'
  outcome = _ship_to(folder, out, *flags)
  found = shipped(out)
  shutil.rmtree(out, ignore_errors=True)
  return outcome, found


def _ship_bayesian(folder: pathlib.Path):
  return _ship(folder, '--rounds=1', '--bits=posterior')


def _ship_again(folder: pathlib.Path):
  """Ships a run into a folder, which may hold the same shipment, damaged."""
  run = folder.parents[1] / 'whole' / 'shipped run'
  if not run.exists():
    _must(_launch('quickstart')(run))
  outcome = _ship_to(run, folder)
  # What it says of a shipment that is there are the figures in its files.
  return outcome, shipped(folder)


def _load_model_file(folder: pathlib.Path):
  import jax

  from sparsejax import shipping

  found: list[Any] = []

  def main(argv):
    try:
      loaded = shipping.load(folder / 'model.sparse')
    except (ValueError, OSError) as error:  # what it says it raises
      print(str(error), file=sys.stderr)
      return 2
    found.extend([loaded.header, [leaf.tolist() for leaf in jax.tree.leaves(loaded.params)]])
    return 0

  return command.call(main, ['load'], folder.parent), found


def search_in(folder: pathlib.Path, **changes: str) -> list[str]:
  """Returns the command line of a search of two trials of two steps, with changes to its config."""
  place = str(settings.CONFIGS / 'quickstart.py')
  short = {**settings.TWO_STEPS, **settings.BASES['quickstart'], **changes}
  fields = {
    'configs': repr((place,)),
    'overrides': repr(tuple(f'{name}={value}' for name, value in short.items())),
    'scheduler.name': 'none',
    'trials': '2',
    'space': repr(({'key': RATE, 'kind': 'log_uniform', 'low': 0.01, 'high': 0.1},)),
  }
  argv = [sys.executable, '-m', 'sparsejax.sweep', f'--workdir={folder}']
  argv += [f'--config={settings.CONFIGS / "sweeps" / "quickstart.py"}']
  return argv + [f'--config.{name}={value}' for name, value in fields.items()]


def _sweep(folder: pathlib.Path):
  argv = search_in(folder)  # in processes of its own, as ever
  found = subprocess.run(argv, capture_output=True, text=True, cwd=command.ROOT, check=False)
  error = found.stderr if 'Traceback' in found.stderr else ''
  try:
    trials = _figures_of(json.loads((folder / 'trials.json').read_text()))
  except (OSError, ValueError) as unreadable:
    trials = str(unreadable)
  return command.Outcome(found.returncode, found.stdout, found.stderr, error), trials


def _figures_of(trials: Any) -> Any:
  """Leaves out what differs between two equal searches, one of which lost a trial half way."""
  if isinstance(trials, dict):
    return {k: _figures_of(v) for k, v in trials.items() if k not in (*TIMINGS, 'trial')}
  return [_figures_of(one) for one in trials] if isinstance(trials, list) else trials


def _cache(folder: pathlib.Path):
  """The cache of decoded arrays, as the data sets of tensorflow-datasets use it."""
  from sparsejax.experiment.data import array_cache, splits

  found: list[Any] = []

  def main(argv):
    import numpy as np

    some = splits.Split(np.arange(64, dtype=np.uint8).reshape(4, 4, 4, 1), np.arange(4))
    whole = array_cache.cached('some', lambda: splits.Whole(some, some))
    found.extend(array.tolist() for part in (whole.train, whole.test) for array in part)
    return 0

  folder.mkdir(exist_ok=True)
  with mock.patch.dict(os.environ, SPARSEJAX_CACHE=str(folder)):
    return command.call(main, ['data'], folder), found


def _write_arrays(folder: pathlib.Path):
  import numpy as np

  chance = np.random.default_rng(0)
  names = {'train': 96, 'test': 32}
  arrays = {f'x_{name}': chance.integers(0, 255, (n, 8, 8, 1)) for name, n in names.items()}
  arrays = {name: array.astype(np.uint8) for name, array in arrays.items()}
  labels = {f'y_{name}': chance.integers(0, 4, n) for name, n in names.items()}
  folder.mkdir()
  np.savez(folder / 'own.npz', **arrays, **labels)
  return command.Outcome(0, '', ''), None


def _arrays(folder: pathlib.Path):
  place = folder.parent / 'of arrays'
  name, small = f'npz:{folder / "own.npz"}', {'data.validation': '16', 'data.limit': '64'}
  found = _launch('quickstart', **{'data.name': name, **small})(place)
  shutil.rmtree(place, ignore_errors=True)
  return found


def tried(
  count: int,
  seed: int,
  folder: pathlib.Path,
  *,
  until: float = float('inf'),
  sources: Sequence[str] = (),
) -> Iterator[tuple[Case, settings.Verdict]]:
  """Yields every case that changed a file, and its result, until time is up."""
  world = World(folder, sources)
  for case in command.before(until, world.cases(count, seed)):
    verdict = attempt(world, case, seed)
    if verdict is not None:
      yield case, verdict
