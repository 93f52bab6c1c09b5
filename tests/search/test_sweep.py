"""Searches as a person runs them: processes, deaths, a database, and what is refused.

SPARSEJAX_KILLS=10 kills ten workers of one search instead of three.
"""

import contextlib
import json
import math
import os
import pathlib
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import commands
import pytest
from optuna.trial import TrialState

from sparsejax import sweep, sweep_worker
from sparsejax.experiment.rundir.metrics import TIMINGS
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.search import view
from sparsejax.search.plan import base, settings
from sparsejax.search.plan.brackets import brackets
from sparsejax.search.storage import identity, open_storage
from sparsejax.search.study import Study

KILLS = int(os.environ.get('SPARSEJAX_KILLS', '3'))
# 4@1 -> 2@2 -> 1@4, 3@2 -> 1@4, 3@4; or, long enough for many kills, 27@1 -> 9@3 -> 3@9 -> 1@27 and
# so on.
EPOCHS, ETA = (4, 2) if KILLS <= 3 else (27, 3)
# Not the digits: those are split by who wrote them, and not by a seed.
DATA = commands.write_npz(
  commands.CACHES / f'search-{os.getpid()}.npz', examples=1200, size=8, channels=1
)
# Small batches, so that a trial lasts long enough to be killed in the middle.
RATE = 'scale_by_learning_rate.learning_rate.value'
QUICKSTART = '--config=configs/sweeps/quickstart.py'
SEARCH = (
  QUICKSTART,
  f'--config.scheduler.eta={ETA}',
  f"--config.overrides=('epochs={EPOCHS}.0', 'prune.begin_epochs=1.0', 'batch_size=4', "
  "'log.checkpoint_every_epochs=1.0', 'log.every_steps=200', "
  f"'data.name={DATA}', 'data.scale=symmetric')",
  # What varies leaves the compiled program as it is: compiling would be most of the time.
  "--config.space=({'key': 'data.split_seed', 'kind': 'integers', 'low': 0, 'high': 99999},)",
)


def start(*arguments):
  return subprocess.Popen(
    [sys.executable, '-m', 'sparsejax.sweep', *arguments],
    cwd=commands.ROOT,
    env=commands.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def run(*arguments):
  process = start(*arguments)
  output, _ = process.communicate()
  return process.returncode, output


@contextlib.contextmanager
def reading(folder, url=None, name='sweep'):
  """The study of a search, as another process sees it."""
  asked = json.loads((folder / 'sweep.json').read_text())
  search = settings.check(asked, sweep_worker.resolver(asked['overrides']))
  storage = open_storage(url, folder)
  try:
    yield Study(search, storage, name, identity(folder, url))
  finally:
    if url is not None:
      storage.remove_session()
      storage.engine.dispose()


def read_lines(run_directory):
  return [json.loads(line) for line in (run_directory / 'metrics.jsonl').read_text().splitlines()]


def figures_of(folder):
  """What every run of a search measured, without its seconds."""
  return {
    path.name: [{k: v for k, v in line.items() if k not in TIMINGS} for line in read_lines(path)]
    for path in (folder / 'runs').iterdir()
  }


def epochs_trained(folder):
  """Counted from the metrics alone; a line twice, or a step that goes back, is an error."""
  total = 0.0
  for path in (folder / 'runs').iterdir():
    steps = [line['step'] for line in read_lines(path)]
    assert steps == sorted(set(steps)), path
    total += read_lines(path)[-1]['epoch']
  return total


def counts_of(folder, **where):
  with reading(folder, **where) as study:
    now = view.status(study)
  return now.finished, now.stopped, now.failed, len(now.running), now.waiting


SCHEDULE = brackets(EPOCHS, ETA)
FINISHED = sum(rungs[-1].configurations for rungs in SCHEDULE)
CONFIGURATIONS = sum(rungs[0].configurations for rungs in SCHEDULE)
STOPPED = CONFIGURATIONS - FINISHED
PROMOTIONS = sum(rung.configurations for rungs in SCHEDULE for rung in rungs[1:])
ALL_DONE = (FINISHED, STOPPED, 0, 0, 0)


def epochs_of_the_rungs():
  total = 0
  for rungs in SCHEDULE:
    before = 0
    for rung in rungs:
      total += rung.configurations * (rung.epochs - before)
      before = rung.epochs
  return total


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  folder = tmp_path_factory.mktemp('undisturbed')
  status, output = run(*SEARCH, f'--workdir={folder}', '--workers=2')
  assert status == 0, output
  return folder, output


def test_two_workers_train_every_rung_and_nothing_twice(undisturbed):
  folder, output = undisturbed
  assert counts_of(folder) == ALL_DONE
  if EPOCHS == 4:
    assert epochs_of_the_rungs() == (4 + 2 + 2) + (3 * 2 + 2) + 3 * 4
  assert epochs_trained(folder) == epochs_of_the_rungs()
  assert len(list((folder / 'runs').iterdir())) == CONFIGURATIONS
  assert len(list((folder / 'runs').glob('*/summary.json'))) == FINISHED
  done = f'{FINISHED} finished, {STOPPED} stopped early, 0 running, 0 waiting, of {CONFIGURATIONS}'
  done += f' configurations; {PROMOTIONS} promotions'
  assert output.splitlines()[-6].startswith(done)
  best = min(
    json.loads(file.read_text())['validation_loss']
    for file in (folder / 'runs').glob('*/summary.json')
  )
  with reading(folder) as study:
    assert study.study.best_value == best
  assert f'validation_loss {best:.4g}' in output.splitlines()[-5]


def test_the_same_command_again_finds_nothing_to_do(undisturbed):
  folder, _ = undisturbed
  before = figures_of(folder)
  status, output = run(*SEARCH, f'--workdir={folder}')
  assert status == 0
  assert f'{FINISHED} finished, {STOPPED} stopped early' in output
  assert figures_of(folder) == before


def test_a_search_that_was_moved_without_its_hidden_files_goes_on(undisturbed, tmp_path):
  folder, _ = undisturbed
  moved = tmp_path / 'moved'
  shutil.copytree(folder, moved, ignore=shutil.ignore_patterns('.*'))
  status, output = run(*SEARCH, f'--workdir={moved}')
  assert status == 0, output
  assert f'{FINISHED} finished, {STOPPED} stopped early' in output
  assert figures_of(moved) == figures_of(folder)


def test_a_study_elsewhere_says_what_a_folder_lacks_that_was_moved(tmp_path):
  with pytest.raises(ValueError, match=r'a search without its \.identity, .*: copy that file too'):
    identity(tmp_path, 'postgresql://host/x')
  given = identity(tmp_path, 'postgresql://host/x', is_new=True)
  assert identity(tmp_path, 'postgresql://host/x') == given


@pytest.mark.slow
def test_what_is_drawn_again_is_told_of_and_trained_once(tmp_path):
  space = f"--config.space=({{'key': '{RATE}', 'kind': 'choices', 'choices': (0.05, 0.1)}},)"
  status, output = run(*SEARCH[:-1], space, f'--workdir={tmp_path}', '--workers=2')
  assert status == 0, output
  assert f'{CONFIGURATIONS} configurations are drawn from 2 experiments' in output
  assert 'of 2 configurations' in output
  assert len(list((tmp_path / 'runs').iterdir())) == 2
  assert epochs_trained(tmp_path) <= 2 * EPOCHS


def kill_one(study, order):
  """Kills the process of a running trial; returns whether it is seen dead with work left."""
  training = [
    trial
    for trial in study.trials_by_slot().values()
    if trial.state == TrialState.RUNNING and trial.user_attrs.get('worker')
  ]
  # Spread over the trials: one that dies before its first evaluation again and again has failed.
  fewest = min((trial.user_attrs['deaths'] for trial in training), default=math.inf)
  training = [trial for trial in training if trial.user_attrs['deaths'] == fewest < 3]
  if not training:
    return False
  trial = order.choice(training)
  with contextlib.suppress(ProcessLookupError):
    os.kill(int(trial.user_attrs['worker'].rpartition(':')[2]), signal.SIGKILL)
  while study.study.trials[trial.number].state == TrialState.RUNNING:
    time.sleep(0.1)
  return 'lost' in study.study.trials[trial.number].user_attrs


@pytest.mark.slow
def test_killed_workers_lose_no_trial_and_change_no_figure(tmp_path, undisturbed):
  process = start(*SEARCH, f'--workdir={tmp_path}', '--workers=2')
  order, killed = random.Random(0), 0
  while not (tmp_path / 'sweep.json').exists():
    time.sleep(0.1)
  with reading(tmp_path) as study:
    while killed < KILLS:
      assert process.poll() is None, f'it ended after {killed} kills: {process.communicate()[0]}'
      time.sleep(order.uniform(1.0, 4.0))
      killed += kill_one(study, order)
    output, _ = process.communicate()
    assert view.status(study).lost == killed
  assert process.returncode == 0, output
  assert output.count('ended by SIGKILL') == killed
  assert counts_of(tmp_path) == ALL_DONE
  assert epochs_trained(tmp_path) == epochs_of_the_rungs()
  assert figures_of(tmp_path) == figures_of(undisturbed[0])


@pytest.mark.slow
def test_a_search_that_was_terminated_goes_on(tmp_path, undisturbed):
  process = start(*SEARCH, f'--workdir={tmp_path}', '--workers=2')
  while len(list(tmp_path.glob('runs/*/metrics.jsonl'))) < 3:
    assert process.poll() is None, process.communicate()
    time.sleep(0.1)
  process.terminate()
  output, _ = process.communicate()
  assert process.returncode == 128 + signal.SIGTERM, output
  finished, _, failed, running, waiting = counts_of(tmp_path)
  assert (failed, running) == (0, 0)
  assert waiting > 0
  assert finished == 0
  status, output = run(*SEARCH, f'--workdir={tmp_path}', '--workers=2')
  assert status == 0, output
  assert counts_of(tmp_path) == ALL_DONE
  assert figures_of(tmp_path) == figures_of(undisturbed[0])


def test_optunas_pruner_stops_trials_by_their_validation(tmp_path):
  status, output = run(
    *SEARCH,
    '--config.scheduler.name=optuna_hyperband',
    '--config.scheduler.eta=2',
    '--config.trials=10',
    f'--workdir={tmp_path}',
    '--workers=2',
  )
  assert status == 0, output
  with reading(tmp_path) as study:
    trials = study.trials_by_slot().values()
  finished, stopped, failed, running, waiting = counts_of(tmp_path)
  assert (finished + stopped, failed, running, waiting) == (10, 0, 0, 0)
  assert finished > 0
  assert stopped > 0
  for trial in trials:
    lines = read_lines(tmp_path / 'runs' / trial.user_attrs['directory'])
    measured = [line['validation_loss'] for line in lines if 'validation_loss' in line]
    assert set(trial.intermediate_values.values()) <= set(measured)
    if trial.state == TrialState.PRUNED:
      assert max(trial.intermediate_values) == lines[-1]['epoch'] < EPOCHS


def test_a_trial_that_can_not_be_trained_is_reported_and_stops_nothing(tmp_path):
  status, output = run(
    *SEARCH[:-1],
    '--config.sampler=grid',
    '--config.scheduler.name=none',
    f"--config.space=({{'key': '{RATE}', 'kind': 'choices', 'choices': (0.05, 1e30)}},)",
    f'--workdir={tmp_path}',
  )
  assert status == 0, output
  assert counts_of(tmp_path) == (1, 0, 1, 0, 0)
  line = next(line for line in output.splitlines() if line.startswith('  failed: b0-001'))
  assert 'the loss of step' in line


# A database.


@pytest.fixture
def server(tmp_path_factory):
  """A PostgreSQL server of this test's own, on a free port."""
  folders = [
    *os.environ['PATH'].split(':'),
    *map(str, pathlib.Path('/').glob('usr/lib/postgresql/*/bin')),
  ]
  found = next((pathlib.Path(f) for f in folders if (pathlib.Path(f) / 'initdb').exists()), None)
  if found is None:
    pytest.skip('no PostgreSQL server is installed')
  pytest.importorskip('psycopg')
  folder = pathlib.Path(tmp_path_factory.mktemp('postgres', numbered=True))
  user = {}
  if os.geteuid() == 0:  # which the server refuses to run as
    try:
      account = pwd.getpwnam('nobody')
    except KeyError:
      pytest.skip('PostgreSQL does not run as root, and there is nobody else')
    user = {'user': account.pw_uid, 'group': account.pw_gid}
    folder = pathlib.Path(f'/tmp/sparsejax-postgres-{os.getpid()}')
    folder.mkdir()
    os.chown(folder, account.pw_uid, account.pw_gid)
  data = folder / 'data'
  initdb = [found / 'initdb', '-D', data, '-U', 'test', '-A', 'trust', '-E', 'UTF8', '--no-sync']
  subprocess.run(initdb, check=True, capture_output=True, cwd='/', **user)
  with socket.create_server(('127.0.0.1', 0)) as free:
    port = free.getsockname()[1]
  command = [found / 'postgres', '-D', data, '-k', folder, '-h', '127.0.0.1', '-p', str(port)]
  process = subprocess.Popen(
    command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd='/', **user
  )
  try:
    wait_for(port, process)
    yield f'postgresql+psycopg://test@127.0.0.1:{port}/postgres'
  finally:
    process.send_signal(signal.SIGINT)
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(port, process):
  import psycopg

  while True:
    assert process.poll() is None, 'the server ended'
    with contextlib.suppress(psycopg.OperationalError):
      psycopg.connect(f'postgresql://test@127.0.0.1:{port}/postgres').close()
      return
    time.sleep(0.1)


@pytest.mark.slow
def test_two_commands_on_one_postgresql_study_do_no_trial_twice(tmp_path, server, undisturbed):
  arguments = (*SEARCH, f'--workdir={tmp_path}', f'--study={server}', '--name=shared')
  processes = [start(*arguments) for _ in range(2)]
  outputs = [process.communicate()[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outputs
  where = {'url': server, 'name': 'shared'}
  assert counts_of(tmp_path, **where) == ALL_DONE
  with reading(tmp_path, **where) as study:
    assert len(study.study.trials) == len(study.sweep.slots)  # none doubled, none lost
    workers = {trial.user_attrs['worker'] for trial in study.trials_by_slot().values()}
  assert len(workers) == 2
  assert epochs_trained(tmp_path) == epochs_of_the_rungs()
  assert figures_of(tmp_path) == figures_of(undisturbed[0])
  status, output = run(*SEARCH, f'--workdir={tmp_path / "b"}', f'--study={server}', '--name=shared')
  assert status == 2
  assert 'its runs are in another folder' in output


# What is refused.


REFUSED = (
  ((), '--config is missing: it must be --config=configs/sweeps/NAME.py'),
  (
    ('--config=configs/sweeps/none.py', '--workdir=DIR'),
    'config=configs/sweeps/none.py: there is no such file; configs/sweeps has ',
  ),
  ((QUICKSTART,), '--workdir is missing: it must be --workdir=FOLDER'),
  ((QUICKSTART, '--workdir=DIR', 'more'), 'unrecognized arguments: more'),
  ((QUICKSTART, '--workdir=DIR', '--workers=0'), 'workers'),
  ((QUICKSTART, '--workdir=DIR', '--config.sampler=best'), "sampler 'best'"),
  ((QUICKSTART, '--workdir=DIR', '--config.nothing=1'), 'nothing'),
  (
    ('--config=configs/quickstart.py', '--workdir=DIR'),
    'must have the fields of sparsejax/search/plan/base.py',
  ),
  (
    (QUICKSTART, '--workdir=DIR', "--config.constraints=({'metric': 'x', 'at_most': '1'},)"),
    "at_most='1' must be a number",
  ),
  ((QUICKSTART, '--workdir=DIR', '--config.objectives=(5,)'), 'objectives: 5'),
  ((QUICKSTART, '--workdir=DIR', '--study=sqlite:///study.db'), 'SQLite lets two workers take one'),
  (
    (QUICKSTART, '--workdir=DIR', '--study=postgresql+psycopg://me:secret@127.0.0.1:1/none'),
    'study=postgresql+psycopg://me:***@127.0.0.1:1/none: ',
  ),
  (
    (
      SEARCH[0],
      '--workdir=DIR',
      "--config.space=({'key': 'l1', 'kind': 'uniform', 'low': 0, 'high': 1},)",
    ),
    "field 'config.l1'",
  ),
  (
    (QUICKSTART, '--workdir=DIR', '--study=postgresql+psycopg://me@127.0.0.1:99999999/none'),
    'study=postgresql+psycopg://me@127.0.0.1:99999999/none: ',
  ),
  (
    (QUICKSTART, '--workdir=DIR', '--config.trials=many'),
    "config.trials='many' must be an integer",
  ),
  (
    (QUICKSTART, '--workdir=DIR', '--config.scheduler.eta=-inf'),
    "config.scheduler.eta='-inf' must be an integer",
  ),
  ((QUICKSTART, '--workdir=DIR', '--config.objectives= '), "config.objectives=' ' must be a tuple"),
  ((QUICKSTART, '--workdir=DIR', '--config.seeds=()'), 'seeds=() must have one integer or more'),
  ((QUICKSTART, '--workdir=DIR', '--config.sampler_seed=-1'), 'sampler_seed=-1 must be an integer'),
  ((QUICKSTART, '--workdir=DIR', '--config.deaths=-1'), 'deaths=-1 must be an integer of 0'),
  ((QUICKSTART, '--workdir=DIR', '--config.overrides=(5,)'), 'overrides: 5 must be'),
  (
    (QUICKSTART, '--workdir=DIR', "--config.overrides=('epochs=9.0', 'seed=3')"),
    "overrides: 'seed=3': the seeds of a search are set by its `seeds`, as in seeds=(3,)",
  ),
  (
    (QUICKSTART, '--workdir=DIR', '--config.overrides=None'),
    'config.overrides=None must be a tuple',
  ),
  ((QUICKSTART, '--workdir=DIR', '--config.space=None'), 'config.space=None must be a tuple'),
  (
    (QUICKSTART, '--workdir=DIR', '--config.scheduler=None'),
    'config.scheduler=None must be a block',
  ),
  ((QUICKSTART, '--workdir=DIR', '--study='), "--study='' must be a string of one line"),
  ((QUICKSTART, '--workdir=gs://bucket'), "--workdir='gs://bucket' must be a folder of this"),
  ((QUICKSTART, '--workdir=DIR', "--config.space=('l1',)"), "space: 'l1' must be a dict"),
  (
    (QUICKSTART, '--workdir=DIR', "--config.configs=('configs/quickstart.py', 'configs/no.py:1')"),
    'configs: configs/no.py:1: config=configs/no.py: there is no such file',
  ),
  ((QUICKSTART, '--workdir=DIR', "--config.configs=('README.md',)"), 'configs: README.md: '),
  ((QUICKSTART, '--workdir=DIR', '--config.configs=(5,)'), 'configs: 5 must be a string'),
  (
    (
      QUICKSTART,
      '--workdir=DIR',
      "--config.space=({'key': 'prune.density', 'kind': 'uniform', 'low': 0.1, 'high': 1.5},)",
    ),
    "space: 'prune.density' at 1.5 of configs/quickstart.py: prune.density=1.5 must be",
  ),
)


OF_A_FILE = """
from sparsejax.search.plan import base


def get_config():
  config = base.get_config().to_dict()
  {change}
  return __import__('ml_collections').ConfigDict(config)
"""


@pytest.mark.parametrize('field', [*base.get_config(), 'scheduler.name', 'scheduler.eta'])
@pytest.mark.parametrize('value', ['None', '{1}', "['x']", "{'a': 1}", "b'x'", '[[]]', "'x'"])
def test_whatever_a_file_has_in_a_field_it_is_refused_in_one_line(field, value, tmp_path, capsys):
  block, _, key = field.rpartition('.')
  place = f"config['{block}']['{key}']" if block else f"config['{key}']"
  (tmp_path / 'mine.py').write_text(OF_A_FILE.format(change=f'{place} = {value}'))
  flags = {'scheduler.name': 'none', 'scheduler.eta': '3', 'trials': '5'}
  for flag, text in flags.items():
    given = [] if flag == field else [f'--config.{flag}={text}']
    argv = [f'--config={tmp_path}/mine.py', f'--workdir={tmp_path}/search', *given]
    assert sweep.main(['sweep', *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith('sweep: ')
    assert error.count('\n') == 1
    assert field.partition('.')[0] in error or 'space=() must' in error
  assert not (tmp_path / 'search').exists()


@pytest.mark.parametrize(('arguments', 'message'), REFUSED, ids=[m for _, m in REFUSED])
def test_what_can_not_be_searched_is_one_line_and_status_2(arguments, message, tmp_path, capsys):
  folder = tmp_path / 'search'
  argv = ['sweep', *(a.replace('DIR', str(folder)) for a in arguments)]
  assert sweep.main(argv) == 2
  error = capsys.readouterr().err.strip()
  assert error.startswith('sweep: ')
  assert message in error
  assert '\n' not in error
  assert not folder.exists()


def test_another_search_in_the_same_folder_is_refused(undisturbed, capsys):
  folder, _ = undisturbed
  before = figures_of(folder)
  assert sweep.main(['sweep', QUICKSTART, f'--workdir={folder}']) == 2
  assert 'it holds another search; give another folder' in capsys.readouterr().err
  assert figures_of(folder) == before


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(tmp_path, capsys):
  (tmp_path / 'notes.txt').write_text('mine')
  assert sweep.main(['sweep', QUICKSTART, f'--workdir={tmp_path}']) == 2
  error = capsys.readouterr().err
  assert error == (
    f'sweep: workdir={tmp_path}: it holds notes.txt, but no search; give another folder\n'
  )
  assert [entry.name for entry in tmp_path.iterdir()] == ['notes.txt']


@pytest.mark.parametrize(
  ('text', 'why'),
  [('{"configs": ', 'Expecting value'), ('[' * 10**5, 'sweep.json is nested too deeply')],
)
def test_a_damaged_search_is_named(tmp_path, capsys, text, why):
  (tmp_path / 'sweep.json').write_text(text)
  assert sweep.main(['sweep', QUICKSTART, f'--workdir={tmp_path}']) == 2
  error = capsys.readouterr().err.strip()
  assert error.startswith(f'sweep: {tmp_path}/sweep.json is damaged ({why}')
  assert '\n' not in error


def test_a_search_that_can_not_be_looked_for_is_told_with_its_folder(tmp_path, monkeypatch):
  def denied(path):
    raise PermissionError(13, 'Permission denied', str(path))

  monkeypatch.setattr(pathlib.Path, 'exists', denied)
  with pytest.raises(UsageError, match=r'Permission denied; give another folder$'):
    sweep._is_new(tmp_path, {})


@pytest.mark.parametrize('name', ['study.journal', '.study.lock'])
def test_a_folder_in_the_place_of_a_study_is_named(tmp_path, name):
  (tmp_path / name).mkdir()
  with pytest.raises(ValueError, match=rf'{re.escape(name)} is damaged \(it is a folder\)'):
    open_storage(None, tmp_path)


def test_a_folder_with_the_study_of_a_command_that_was_killed_at_its_start_is_its_own(tmp_path):
  (tmp_path / '.lock').touch()
  (tmp_path / 'study.journal').touch()
  assert sweep._is_new(tmp_path, {})
  (tmp_path / 'sweep.json').write_text('{"eta": 3}')
  assert not sweep._is_new(tmp_path, {'eta': 3})


def test_what_can_be_told_at_once_is_told_before_the_slow_imports():
  """Each of these takes a second and more."""
  slow = ('flax', 'orbax', 'scipy.signal', 'sqlalchemy', 'sparsejax.experiment.training.setup')
  program = (
    'import sys; from sparsejax import sweep; '
    f'status = sweep.main(["sweep", "{QUICKSTART}", "--workdir=/none", "--config.sampler=best"]); '
    f'print(status, [name for name in {slow} if name in sys.modules])'
  )
  command = [sys.executable, '-c', program]
  done = subprocess.run(command, cwd=commands.ROOT, capture_output=True, text=True, check=True)
  assert done.stdout == '2 []\n'
