"""Impossible settings of all commands: refused in one line, or trained as they were given.

Half of them are any value for any name that the commands' help lists; the others come from the
definitions, just beyond and just within what a field may be.
"""

import ast
import contextlib
import json
import pathlib
import random
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import command
import values

CONFIGS = command.ROOT / 'configs'
TWO_STEPS = {
  'data.name': 'digits',
  'data.limit': '64',
  'batch_size': '32',
  'epochs': '1.0',
  'evaluation.every_epochs': '1.0',
  'log.checkpoint_every_epochs': '1.0',
}
BASES = {
  'quickstart': {'prune.begin_epochs': '0.5'},
  'lenet300_sparse_vd': {
    'add_kl_gradients.weight.begin_epochs': '0.0',
    'add_kl_gradients.weight.end_epochs': '0.5',
    'scale_by_learning_rate.learning_rate.begin_epochs': '0.5',
  },
  'lenet300_rigl': {'prune.end_epochs': '0.5'},
  'lenet300_l1': {'prune.begin_epochs': '0.5'},
  'lenet300_gradual': {
    'prune.begin_epochs': '0.0',
    'prune.end_epochs': '0.5',
    'prune.every_steps': '1',
  },
}
SHARES = {
  **{'launch': 70, 'benchmark': 8, 'sweep': 8, 'report': 4, 'deploy': 5, 'reproduce': 5},
  'ship': 5,
}
OF_LAUNCH = ('workdir', 'shorten', 'coordinator', 'processes', 'process', 'config')
OF_SWEEP = ('workdir', 'study', 'name', 'workers', 'config')
OF_SEARCHES = (
  *('configs', 'overrides', 'seeds', 'space', 'sampler', 'sampler_seed', 'trials'),
  *('scheduler.name', 'scheduler.eta', 'objectives', 'constraints', 'deaths'),
)
OF_OTHERS = {
  'report': ('out', 'runs', 'methods', 'size', 'format'),
  'deploy': ('run', 'workdir', 'threshold', 'thresholds', 'data_dir', 'parts'),
  'reproduce': ('runs', 'data', 'jobs', 'seconds', 'only'),
  'ship': (
    *('run', 'out', 'bits', 'tolerance', 'epochs', 'learning_rate', 'format', 'rounds'),
    *('data_dir', 'parts'),
  ),
}
# What else makes a flag of ship be read.
WITH_SHIP = {
  '--tolerance': {'--bits': 'auto'},
  '--epochs': {'--bits': '4'},
  '--learning_rate': {'--bits': '4', '--epochs': '1'},
}
OF_BENCHMARKS = ('against', 'out', 'profile', 'rounds')


class Case(NamedTuple):
  """One setting.

  Attributes:
    command: that is given it.
    base: the config that it changes.
    field: a config's field, or a flag with its dashes.
    value: of it.
    half: 'blind' or 'definitions'.
  """

  command: str
  base: str
  field: str
  value: str
  half: str


class Verdict(NamedTuple):
  """A case's result: 'refused', 'trained', 'accepted' (no training asked for) or 'wrong'.

  Attributes:
    kind: one of these.
    why: what is wrong.
    said: by the command, in short.
  """

  kind: str
  why: str = ''
  said: str = ''


def fields_of_help() -> list[str]:
  """Returns the names of settings that the launch command's help lists."""
  from sparsejax.experiment.config import commandline

  return re.findall(r'--config\.([\w.]+)=', commandline.help_text())


def cases(count: int, seed: int, bases: Sequence[str] = tuple(BASES)) -> Iterator[Case]:
  """Yields a number of cases of some configs, every other one blind; a seed repeats them."""
  chance = random.Random(seed)
  names = fields_of_help()
  for number in range(count):
    kind = chance.choices(list(SHARES), list(SHARES.values()))[0]
    base = chance.choice(bases)
    if number % 2:
      yield _defined(base, chance)
    else:
      yield _blind(kind, base, names, chance)


def _blind(kind, base, names, chance) -> Case:
  value = values.hostile(chance)
  if kind == 'launch':
    flags = [f'--{flag}' for flag in OF_LAUNCH]
    field = chance.choice(names) if chance.random() < 0.85 else chance.choice(flags)
  elif kind == 'benchmark':
    flags = [f'--{flag}' for flag in OF_BENCHMARKS]
    field = chance.choice(names) if chance.random() < 0.6 else chance.choice(flags)
  elif kind == 'sweep':
    field = chance.choice([*OF_SEARCHES, *(f'--{flag}' for flag in OF_SWEEP)])
  else:
    field = f'--{chance.choice(OF_OTHERS[kind])}'
  return Case(kind, base, field, value, 'blind')


def _defined(base, chance) -> Case:
  """A field that the base config reads, and a value at the edge of what it may be."""
  from sparsejax.experiment.config import fields, loading

  blocks = loading.load(str(CONFIGS / f'{base}.py')).to_dict()
  known = []
  for name, field in [*fields.FIELDS.items(), *fields.BLOCKS.items()]:
    if isinstance(field, dict):
      known += [(f'{name}.{key}', one) for key, one in field.items() if name in blocks]
    else:
      known.append((name, field))
  name, field = chance.choice(known)
  kind = chance.choices(('launch', 'benchmark', 'ship'), (17, 2, 1))[0]
  if kind == 'ship':
    flag, known = chance.choice(list(_of_ship().items()))
    return Case(kind, base, f'--{flag}', values.around(known, chance), 'definitions')
  return Case(kind, base, name, values.around(field.kind, chance), 'definitions')


def _of_ship():
  """What each flag of ship may be."""
  from sparsejax.delivery import request
  from sparsejax.experiment.config import setting_kinds
  from sparsejax.shipping import sharing

  return {
    'bits': setting_kinds.Integer(1, sharing.MOST_BITS),
    'tolerance': setting_kinds.Number(0.0, 1.0),
    'epochs': setting_kinds.Integer(0),
    'learning_rate': setting_kinds.Number(0.0),
    'format': setting_kinds.Choice(tuple(request.NAMES)),
    'rounds': setting_kinds.Integer(1),
  }


class World:
  """A folder with finished runs to read, and one in which commands are given their settings.

  Args:
    folder: to make both in; it must be empty.
  """

  def __init__(self, folder: pathlib.Path):
    self.runs, self.place = folder / 'runs', folder / 'place'
    self.here = self.place / 'a' / 'b' / 'here'
    for path in (self.runs, self.here):
      path.mkdir(parents=True)
    for base in ('quickstart', 'lenet300_sparse_vd'):
      workdir = f'--workdir={self.runs / base}'
      outcome = command.call(_main('launch'), ['launch', *flags(base, {}), workdir], self.here)
      assert outcome.status == 0, outcome

  def empty(self) -> None:
    """Removes what a command left."""
    shutil.rmtree(self.place)
    self.here.mkdir(parents=True)


def flags(base: str, changes: dict[str, str]) -> list[str]:
  """Returns the flags for two steps of a config, with some fields changed."""
  given = {**TWO_STEPS, **BASES[base]}
  for name in changes:
    stem = re.sub(r'_(epochs|steps|examples)$', '', name)
    given = {k: v for k, v in given.items() if re.sub(r'_(epochs|steps)$', '', k) != stem}
    given = {k: v for k, v in given.items() if not k.startswith(f'{name}.')}
  found = [f'--config.{name}={value}' for name, value in (given | changes).items()]
  return [f'--config={CONFIGS / base}.py', *found]


def argv_of(case: Case, world: World) -> list[str]:
  """Returns the command line of a case."""
  changes = {} if case.field.startswith('--') else {case.field: case.value}
  own = {} if changes else {case.field: case.value}
  given: dict[str, str] = {}
  if case.command in ('launch', 'benchmark'):
    config, *rest = flags(case.base, changes)
    given['--config'] = config.partition('=')[2]
    if case.command == 'launch':
      given['--workdir'] = 'run'
    else:
      given['--rounds'] = '1'
  elif case.command == 'sweep':
    given = {'--config': str(CONFIGS / 'sweeps' / 'quickstart.py'), '--workdir': 'search'}
    fields = {'configs': f"('{CONFIGS / 'quickstart.py'}',)"} | changes
    rest = [f'--config.{name}={value}' for name, value in fields.items()]
  elif case.command == 'report':
    given, rest = {'--out': 'out'}, [str(world.runs)]
  elif case.command == 'deploy':
    given, rest = {'--run': str(world.runs / 'lenet300_sparse_vd')}, []
    given |= {'--threshold': '3.0'} if case.field != '--thresholds' else {}
  elif case.command == 'ship':
    given, rest = {'--run': str(world.runs / 'quickstart'), '--out': 'shipped'}, []
    given |= WITH_SHIP.get(case.field, {})
  else:
    given, rest = {'--runs': 'runs'}, ['mnist_methods']
  return [case.command, *(f'{k}={v}' for k, v in (given | own).items()), *rest]


def _main(name: str):
  if name == 'reproduce':
    from tools import reproduce

    return lambda argv: 0 if reproduce.parse(list(argv[1:])) else 1
  import importlib

  return importlib.import_module(f'sparsejax.{name}').main


def attempt(case: Case, world: World) -> Verdict:
  """Gives one setting to its command, and judges the result.

  Training stops at the first evaluation of two steps or more; a search is set up and begins no
  trial, a benchmark times nothing, reproduce.py only reads its arguments, and ship only them, the
  run and the folder.
  """
  from sparsejax import launch
  from sparsejax.benchmarks import step_figures
  from sparsejax.delivery import figures, shipment
  from sparsejax.experiment import run
  from sparsejax.experiment.terminal.errors import PausedError
  from sparsejax.search import supervisor

  actual, paused = run.run, []

  def two_steps(*arguments, **options):
    try:
      return actual(*arguments, **options, watch=lambda line: line['step'] >= 2)
    except PausedError:
      paused.append(True)
      return {}

  before = command.listing(world.place), command.listing(world.runs)
  main = launch.main if case.command == 'launch' else _main(case.command)
  with (
    mock.patch.object(run, 'run', two_steps),
    mock.patch.object(step_figures, 'measure', return_value={}),
    mock.patch.object(supervisor.Supervisor, 'run', return_value=0),
    mock.patch.object(shipment, 'ship', return_value={}),
    mock.patch.object(figures, 'print_tables'),
  ):
    outcome = command.call(main, argv_of(case, world), world.here)
  after = command.listing(world.place), command.listing(world.runs)
  try:
    return _judged(case, outcome, before != after, world)
  finally:
    if before[0] != after[0]:
      world.empty()


def _judged(case: Case, outcome: command.Outcome, is_written: bool, world: World) -> Verdict:
  said = outcome.error[-1500:] or outcome.err[:600]

  def wrong(why: str) -> Verdict:
    return Verdict('wrong', why, said)

  if outcome.error:
    return wrong('a traceback')
  if any(_moves(text) for text in (outcome.err, outcome.out)):
    return wrong('an escape sequence reaches the terminal')
  if outcome.status == 2:
    if len(outcome.lines) != 1:
      return wrong(f'{len(outcome.lines)} lines')
    if not is_told(case, outcome.err):
      return wrong('the line names no field, or not what is wrong with it')
    return wrong('something was written') if is_written else Verdict('refused', said=said)
  if outcome.status == 1 and 'non-finite' in outcome.err.lower() and len(outcome.lines) == 1:
    return Verdict('trained', said=said)  # to its end, which is that of the finite numbers
  if outcome.status != 0:
    return wrong(f'status {outcome.status}')
  if case.command != 'launch':
    return Verdict('accepted')
  return _trained(case, world) or Verdict('trained')


def _moves(text: str) -> bool:
  return any(unicodedata.category(letter) == 'Cc' and letter not in '\n' for letter in text)


SAYS = re.compile(
  r'must|needs|unknown|no such|not? (a|one)\b|missing|did you mean|is not in'
  r'|matches no|never read|is read only|cannot|can\'t|unrecognized|invalid|there is no|without'
  r'|[;:] (give|put|set|use|leave|exclude)\b'
)


def is_told(case: Case, line: str) -> bool:
  """Whether a line names the field, and the value or what it must be."""
  last = case.field.lstrip('-').rpartition('.')[2]
  stem = re.sub(r'_(epochs|steps|examples)$', '', last)
  names = {case.field, case.field.rpartition('.')[0] or last, last, stem}
  has_name = any(re.search(rf'(?<!\w){re.escape(name)}', line) for name in names)
  has_value = len(case.value) > 1 and case.value[:20] in line
  return has_name and (has_value or bool(SAYS.search(line)))


def _trained(case: Case, world: World) -> Verdict | None:
  """What is wrong with what a run with a setting left; None if nothing is."""
  found = sorted(world.place.rglob('config.json'))
  if case.field == '--print_config':
    return None
  if len(found) != 1:
    return Verdict('wrong', f'{len(found)} runs were begun')
  folder = found[0].parent
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  steps = [json.loads(line)['step'] for line in lines]
  if (not steps or steps[-1] < 2) and not (folder / 'summary.json').exists():
    return Verdict('wrong', f'it trained {steps[-1] if steps else 0} steps')
  if case.field.startswith('--'):
    return None
  held: Any = json.loads(found[0].read_text())
  for part in case.field.split('.'):
    if not isinstance(held, dict) or part not in held:
      return Verdict('wrong', f'config.json has no {case.field}')
    held = held[part]
  if held not in meanings(case.value):
    return Verdict('wrong', f'config.json has {held!r:.200} for {case.value!r:.200}')
  return None


def meanings(text: str) -> list[Any]:
  """Returns what a text on a command line may be in JSON: itself, and Python's reading of it."""
  found: list[Any] = [text]
  with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    found.append(json.loads(json.dumps(ast.literal_eval(text))))
  if text.lower() in ('true', 'false'):
    found.append(text.lower() == 'true')
  return found


def tried(
  count: int,
  seed: int,
  folder: pathlib.Path,
  *,
  until: float = float('inf'),
  bases: Sequence[str] = tuple(BASES),
) -> Iterator[tuple[Case, Verdict]]:
  """Yields every case and its result, until time is up.

  Args:
    count: of cases.
    seed: of their choice.
    folder: to work in, empty.
    until: by `time.monotonic`.
    bases: the configs that are changed.
  """
  world = World(folder)
  for case in command.before(until, cases(count, seed, bases)):
    try:
      yield case, attempt(case, world)
    except OSError as error:
      yield case, Verdict('wrong', f'the harness: {error}')
    sys.stdout.flush()
