"""The run directory: named after its experiment, held by one process, never shared."""

import copy
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsejax.experiment.config import identity
from sparsejax.experiment.machine import provenance
from sparsejax.experiment.rundir import runs
from sparsejax.experiment.terminal.errors import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[3]
DEFAULTS = {
  'name': '',
  'method': 'dense',
  'seed': 0,
  'epochs': 180.0,
  'chain': ('trace', 'sgd'),
  'events': (),
  'init_from': None,
  'model': {'name': 'lenet300', 'width': None, 'stages': (1, 2)},
  'data': {'name': 'digits', 'dir': None, 'split_seed': 0},
  'log': {'every_steps': 50, 'tensorboard': False},
  'trace': {'decay': 0.9, 'nesterov': False},
}


def changed(**fields):
  """The defaults with fields changed, their dots written as two underscores."""
  config = copy.deepcopy(DEFAULTS)
  for name, value in fields.items():
    *blocks, last = name.split('__')
    block = config
    for part in blocks:
      block = block[part]
    block[last] = value
  return config


def name_of(config, version=1, digest=None):
  digests = {} if digest is None else {'data.name': digest}
  return identity.hash8(config, DEFAULTS, version, digests)


def test_the_name_is_eight_hexadecimal_digits_and_always_the_same():
  assert re.fullmatch('[0-9a-f]{8}', name_of(DEFAULTS))
  shuffled = dict(reversed(changed(epochs=90.0).items()))
  assert name_of(shuffled) == name_of(changed(epochs=90.0))


@pytest.mark.parametrize(
  'fields',
  [
    {'seed': 1},
    {'name': 'mine'},
    {'method': 'mine'},
    {'data__dir': 'elsewhere'},
    {'log__every_steps': 1},
    {'log__tensorboard': True},
    {'epochs': 180},  # the same number
  ],
)
def test_what_leaves_the_experiment_as_it_is_leaves_its_name(fields):
  assert name_of(changed(**fields)) == name_of(DEFAULTS)


DIFFERENT = [
  {'epochs': 181.0},
  {'chain': ('sgd', 'trace')},
  {'chain': ('trace', 'sgd', 'prune')},
  {'events': ('recalibrate_batch_norm',)},
  {'init_from': 'another'},
  {'model__name': 'vgg16'},
  {'model__width': 8},
  {'model__stages': (2, 1)},
  {'data__name': 'mnist'},
  {'data__split_seed': 1},
  {'trace__decay': 0.8},
  {'trace__nesterov': True},
  {'trace__decay': {'schedule': 'constant', 'value': 0.9}},
  {'trace__decay': {'schedule': 'constant', 'value': 0.8}},
  {'trace': {'decay': 0.9}},  # the link's own default, whatever that is
  {'trace': {}},
  {'trace__new': 1},
]


def test_everything_else_changes_the_name():
  names = {name_of(changed(**fields)) for fields in DIFFERENT}
  names |= {name_of(DEFAULTS), name_of(DEFAULTS, version=2), name_of(DEFAULTS, digest='a')}
  assert len(names) == len(DIFFERENT) + 3


def test_the_order_of_the_chain_counts_though_the_defaults_share_it():
  """The defaults are those of the same chain, so a chain never differs from its own."""
  names = []
  for chain in (('trace', 'sgd'), ('sgd', 'trace'), ('scale_by_sign', 'sgd'), ('sgd',)):
    config = changed(chain=chain)
    names.append(identity.hash8(config, config, 1))
  assert len(set(names)) == 4


def test_a_persons_own_arrays_enter_by_their_content_and_not_by_their_path():
  here, there = (changed(data__name=f'npz:{path}') for path in ('here.npz', 'there.npz'))
  assert name_of(here, digest='abc') == name_of(there, digest='abc')
  assert name_of(here, digest='abc') != name_of(here, digest='abd')


def test_the_name_survives_the_way_through_json():
  for fields in [{}, *DIFFERENT]:
    config = changed(**fields)
    assert name_of(json.loads(json.dumps(config))) == name_of(config)


leaves = st.none() | st.integers(-9, 9) | st.text('ab', max_size=2)
trees = st.dictionaries(
  st.text('xyz', min_size=1, max_size=2),
  leaves | st.dictionaries(st.text('xyz', min_size=1, max_size=2), leaves, min_size=1, max_size=2),
  max_size=3,
)


@settings(deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
@given(trees, trees, trees)
def test_two_configs_share_a_name_exactly_where_they_are_equal(one, other, defaults):
  names = [identity.hash8(config, defaults, 1) for config in (one, other)]
  assert (names[0] == names[1]) == (one == other)


def test_flatten_by_hand():
  nested = {'a': {'b': {'c': 1}, 'd': (2, 3)}, 'e': None, 'f': {}}
  assert identity.flatten(nested) == {'a.b.c': 1, 'a.d': (2, 3), 'e': None}


def config_of(seed=0, **fields):
  return changed(seed=seed, **fields)


def test_a_new_directory_holds_the_config_and_its_hash(tmp_path):
  path = tmp_path / 'deep' / 'below'
  with runs.RunDirectory(path, config_of(seed=3), 'abcd1234') as directory:
    assert directory.checkpoints == path / 'checkpoints'
    assert directory.summary is None
  found = json.loads((path / 'config.json').read_text())
  assert found.pop('hash') == 'abcd1234'
  assert identity.flatten(found) == identity.flatten(json.loads(json.dumps(config_of(seed=3))))


def test_the_same_experiment_may_come_back_and_the_config_is_not_touched(tmp_path):
  runs.RunDirectory(tmp_path, config_of(), 'abcd1234').close()
  before = (tmp_path / 'config.json').stat()
  runs.RunDirectory(tmp_path, config_of(log__every_steps=7), 'abcd1234').close()
  after = (tmp_path / 'config.json').stat()
  assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize(
  ('seed', 'name', 'message'),
  [
    (0, 'ffff0000', 'a run with hash abcd1234, this one has ffff0000; give an empty'),
    (1, 'abcd1234', 'a run with seed 0, this one has 1; give an empty directory or the same'),
  ],
)
def test_another_experiment_or_seed_is_refused(tmp_path, seed, name, message):
  runs.RunDirectory(tmp_path, config_of(), 'abcd1234').close()
  before = (tmp_path / 'config.json').read_bytes()
  with pytest.raises(UsageError, match=message) as error:
    runs.RunDirectory(tmp_path, config_of(seed=seed), name)
  assert f'workdir={tmp_path}' in str(error.value)
  assert (tmp_path / 'config.json').read_bytes() == before
  runs.RunDirectory(tmp_path, config_of(), 'abcd1234').close()  # and holds no lock


def test_an_edited_config_is_refused_though_its_hash_and_seed_are_right(tmp_path):
  runs.RunDirectory(tmp_path, config_of(), 'abcd1234').close()
  file = tmp_path / 'config.json'
  config = json.loads(file.read_text())
  del config['chain']  # of an older version, which had no such settings
  file.write_text(json.dumps(config))
  runs.RunDirectory(tmp_path, config_of(), 'abcd1234').close()
  file.write_text(json.dumps(config | {'epochs': 77.0}))
  with pytest.raises(
    UsageError, match=r'its config.json has epochs=77.0, but the run with its hash has'
  ):
    runs.RunDirectory(tmp_path, config_of(), 'abcd1234')
  file.write_text(json.dumps(config | {'data': config['data'] | {'dir': 'elsewhere'}}))
  runs.RunDirectory(tmp_path, config_of(), 'abcd1234').close()  # no part of the experiment


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path):
  for name, reason in (('notes.txt', r'it holds notes\.txt, but no run'), ('config.json', 'None')):
    (tmp_path / name).write_text('{}')
    with pytest.raises(UsageError, match=reason):
      runs.RunDirectory(tmp_path, config_of(), 'abcd1234')
    assert not (tmp_path / '.lock').exists()


@pytest.mark.parametrize('text', ['', '{', '[1]', '3'])
def test_a_damaged_config_is_told(tmp_path, text):
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(UsageError, match=r'its config\.json is damaged'):
    runs.RunDirectory(tmp_path, config_of(), 'abcd1234')


def test_a_place_that_can_be_no_directory_is_told(tmp_path):
  (tmp_path / 'file').write_text('')
  for path in (tmp_path / 'file', tmp_path / 'file' / 'below'):
    with pytest.raises(UsageError, match=f'workdir={path}: .*; it must be a writable folder'):
      runs.RunDirectory(path, config_of(), 'abcd1234')


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path):
  first = runs.RunDirectory(tmp_path, config_of(), 'abcd1234')
  for _ in range(2):
    with pytest.raises(UsageError, match='another process is training there'):
      runs.RunDirectory(tmp_path, config_of(), 'abcd1234')
  first.close()
  first.close()  # once more does nothing
  second = runs.RunDirectory(tmp_path, config_of(), 'abcd1234')
  del second  # and so does forgetting it
  runs.RunDirectory(tmp_path, config_of(), 'abcd1234').close()


def test_the_half_of_a_file_that_a_kill_left_is_removed(tmp_path):
  half, own = tmp_path / f'.environment.json.{"0" * 32}.tmp', tmp_path / '.mine.tmp'
  for path in (half, own):
    path.touch()
  runs.RunDirectory(tmp_path, config_of(), 'abcd1234').close()
  assert not half.exists()
  assert own.exists()


def test_a_killed_process_leaves_no_lock(tmp_path):
  program = """
    import pathlib, sys
    from sparsejax.experiment.rundir import runs
    directory = runs.RunDirectory(pathlib.Path(sys.argv[1]), {'seed': 0}, 'abcd1234')
    print('held', flush=True)
    sys.stdin.read()
  """
  process = subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(program), str(tmp_path)],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  )
  try:
    assert process.stdout.readline() == b'held\n'
    with pytest.raises(UsageError, match='another process is training there'):
      runs.RunDirectory(tmp_path, {'seed': 0}, 'abcd1234')
  finally:
    process.kill()
    process.communicate()
  assert process.returncode == -signal.SIGKILL
  runs.RunDirectory(tmp_path, {'seed': 0}, 'abcd1234').close()


def test_the_summary_of_a_finished_run(tmp_path):
  with runs.RunDirectory(tmp_path, config_of(), 'abcd1234') as directory:
    summary = {'hash': 'abcd1234', 'seed': 0, 'test_accuracy': 0.5}
    (tmp_path / 'summary.json').write_text(json.dumps(summary))
    assert directory.summary == summary
    (tmp_path / 'summary.json').write_text(json.dumps(summary | {'seed': 1}))
    with pytest.raises(
      UsageError, match=r'its summary\.json is of a run with seed 1, this one has 0'
    ):
      directory.summary  # noqa: B018  (which reads it)


@pytest.mark.parametrize('text', ['null', '{}', '3', '[null]', '["a"]', '{'])
def test_a_damaged_environment_is_told_and_left_as_it_is(tmp_path, text):
  (tmp_path / 'environment.json').write_text(text)
  (tmp_path / 'config.json').write_text('{"hash": "abcd1234", "seed": 0}')
  with (
    runs.RunDirectory(tmp_path, {'seed': 0}, 'abcd1234') as directory,
    pytest.raises(UsageError, match=r'its environment\.json is damaged'),
  ):
    directory.note_start()
  assert (tmp_path / 'environment.json').read_text() == text


def test_every_start_is_noted(tmp_path, caplog):
  caplog.set_level(logging.WARNING, 'absl')
  with runs.RunDirectory(tmp_path, config_of(), 'abcd1234') as directory:
    directory.note_start()
    directory.note_start()
  assert caplog.records == []
  starts = json.loads((tmp_path / 'environment.json').read_text())
  assert len(starts) == 2
  for start in starts:
    assert set(start['versions']) == set(provenance.PACKAGES)
    assert start['devices'] == ['cpu'] * 4
    assert start['cpus'] == os.cpu_count()
    assert start['git_dirty'] in (True, False)


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('git_commit', 'fedcba'),
    ('git_dirty', None),
    ('versions', {'jax': '0'}),
    ('xla_flags', '--xla_one=2'),
  ],
)
def test_going_on_under_other_code_warns(tmp_path, caplog, monkeypatch, field, value):
  with runs.RunDirectory(tmp_path, config_of(), 'abcd1234') as directory:
    directory.note_start()
    now = provenance.environment() | {field: value}
    monkeypatch.setattr(provenance, 'environment', lambda: now)
    with caplog.at_level(logging.WARNING, 'absl'):
      directory.note_start()
  (record,) = caplog.records
  assert record.getMessage().startswith(f'resuming under another {field}: ')
  assert len(json.loads((tmp_path / 'environment.json').read_text())) == 2


@pytest.mark.parametrize(
  ('flags', 'name'),
  [
    ('fpu avx avx2 avx512f', 'a chip with AVX-512'),
    ('fpu avx avx2', 'a chip with AVX2'),
    ('fpu', 'a chip'),
  ],
)
def test_a_processor_is_named_with_its_widest_vectors(monkeypatch, flags, name):
  known = {'model name': 'a chip', 'flags': flags}
  monkeypatch.setattr(provenance, 'cpuinfo', lambda field: known[field])
  assert provenance.processor() == name


@pytest.mark.parametrize('tracked', [False, True])
def test_a_commit_is_told_only_of_the_repository_of_the_code(tmp_path, monkeypatch, tracked):
  file = tmp_path / 'installed' / 'provenance.py'  # as in an environment in somebody's repository
  file.parent.mkdir()
  file.write_text('')
  (tmp_path / 'theirs').write_text('')
  git = ['git', '-C', str(tmp_path), '-c', 'user.name=x', '-c', 'user.email=x@x']
  subprocess.run([*git, 'init', '--quiet'], check=True)
  subprocess.run([*git, 'add', *(['.'] if tracked else ['theirs'])], check=True)
  subprocess.run([*git, 'commit', '--quiet', '-m', 'x'], check=True)
  monkeypatch.setattr(provenance, '__file__', str(file))
  assert (provenance.environment()['git_commit'] is not None) == tracked
