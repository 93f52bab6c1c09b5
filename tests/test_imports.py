"""Imports point one way, and the library wing stands alone (read from the sources, with ast)."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import pytest

from sparsejax.posterior import FAMILIES

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'sparsejax'

# What each wing may use of the others. A command (any other file of the package) may use them all.
MAY_USE = {
  '__init__': {'sparsity', 'posterior', 'transforms', 'signals', 'needs'},
  'answers': set(),
  'atomic': set(),
  'lookup': set(),
  'needs': set(),
  'private': set(),
  'signals': set(),
  'streams': set(),
  'timing': set(),
  'sparsity': {'sparsity', 'atomic', 'lookup', 'streams'},
  'posterior': {'posterior', 'sparsity', 'lookup'},
  'compact': {'compact', 'sparsity', 'answers'},
  'second_order': {'second_order', 'sparsity', 'lookup'},
  'transforms': {'transforms', 'posterior', 'sparsity', 'lookup', 'private'},
  'shipping': {
    *('shipping', 'cpu_conv', 'transforms', 'posterior', 'sparsity', 'lookup', 'private', 'atomic'),
    *('needs', 'answers'),
  },
  'cpu_conv': {'cpu_conv'},
  'cpu_sparse': {'cpu_sparse', 'cpu_conv', 'compact', 'sparsity', 'atomic', 'answers', 'timing'},
  'nn': {'nn', 'cpu_conv', 'posterior', 'sparsity', 'lookup', 'needs'},
  'models': {'models', 'nn', 'compact', 'posterior', 'sparsity', 'lookup', 'needs', 'answers'},
  'experiment': {
    *('experiment', 'models', 'nn', 'cpu_conv', 'transforms', 'posterior', 'sparsity', 'lookup'),
    *('atomic', 'streams', 'private', 'signals', 'needs'),
  },
  'search': {'search', 'experiment', 'lookup', 'signals'},
  'reports': {'reports', 'search', 'experiment'},
  'benchmarks': {'benchmarks', 'experiment', 'models', 'nn', 'cpu_conv', 'timing'},
  'delivery': {
    *('delivery', 'experiment', 'shipping', 'models', 'cpu_sparse', 'sparsity', 'needs', 'timing'),
  },
}
# The ConfigDict stops at the builders, and sparsity is arithmetic on arrays.
MAY_NOT_USE = {
  'sparsity': {'optax', 'flax', 'ml_collections', 'absl'},
  'posterior': {'optax', 'flax', 'ml_collections', 'absl'},
  'compact': {'optax', 'flax', 'ml_collections', 'absl'},
  'second_order': {'optax', 'flax', 'ml_collections', 'absl'},
  'transforms': {'flax', 'ml_collections', 'absl'},
  'shipping': {'flax', 'ml_collections', 'absl'},
  'cpu_conv': {'flax', 'ml_collections', 'absl'},
  'cpu_sparse': {'optax', 'flax', 'ml_collections', 'absl'},
  'nn': {'ml_collections', 'absl'},
  'models': {'ml_collections', 'absl'},
  'signals': {'jax', 'numpy', 'optax', 'flax', 'ml_collections', 'absl'},
  'answers': {'optax', 'flax', 'ml_collections', 'absl'},
  'timing': {'optax', 'flax', 'ml_collections', 'absl'},
  'atomic': {'jax', 'numpy', 'optax', 'flax', 'ml_collections', 'absl'},
  'lookup': {'jax', 'optax', 'flax', 'ml_collections', 'absl'},
}
# The rooms of a wing, each of which may use those before it; the wing's own files use them all.
ROOMS = {
  'sparsity': ('leaves', 'program', 'counting', 'parts'),
  'posterior': ('families',),
  'compact': ('trace', 'rules'),
  'transforms': ('inner',),
  'shipping': ('file', 'export'),
  'experiment': (
    *('terminal', 'machine', 'config', 'rundir', 'data', 'chain', 'show'),
    *('step', 'training', 'outcome'),
  ),
  'search': ('plan',),
  'reports': ('records', 'text', 'figures'),
}
SOURCES = sorted(PACKAGE.rglob('*.py'))


def wing_of(path: pathlib.Path) -> str:
  """'sparsity' for sparsejax/sparsity/leaves/tree.py, 'lookup' for sparsejax/internal/lookup.py."""
  return _wing(['sparsejax', *path.relative_to(PACKAGE).with_suffix('').parts])


def _wing(parts: Sequence[str]) -> str:
  return parts[2 if parts[1] == 'internal' and len(parts) > 2 else 1]


def imported(path: pathlib.Path) -> set[str]:
  """Every module, and every name from a module, that a file imports, at its top or within."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative imports hide where they point'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def used_wings(path: pathlib.Path) -> set[str]:
  parts = [name.split('.') for name in imported(path)]
  return {_wing(part) for part in parts if part[0] == 'sparsejax' and len(part) > 1}


@pytest.mark.parametrize('wing', MAY_USE)
def test_a_wing_uses_only_what_lies_below_it(wing):
  files = [path for path in SOURCES if wing_of(path) == wing]
  assert files
  for path in files:
    assert used_wings(path) <= MAY_USE[wing], path


@pytest.mark.parametrize(
  ('wing', 'room'), [(wing, room) for wing, rooms in ROOMS.items() for room in rooms]
)
def test_a_room_uses_only_those_before_it(wing, room):
  files = sorted((PACKAGE / wing / room).rglob('*.py'))
  assert files
  before = ROOMS[wing][: ROOMS[wing].index(room) + 1]
  for path in files:
    parts = [name.split('.') for name in imported(path) if name.startswith(f'sparsejax.{wing}')]
    used = {part[2] if len(part) > 2 else '' for part in parts}
    assert used <= set(before), path


def test_every_room_has_its_place():
  rooms = {path.parent.relative_to(PACKAGE).parts[:2] for path in SOURCES}
  found = {room for room in rooms if len(room) == 2} - {('benchmarks', 'torch_peer')}
  assert found == {(wing, room) for wing, rooms in ROOMS.items() for room in rooms}


@pytest.mark.parametrize('wing', ['sparsejax', 'tests', 'tools'])
def test_a_folder_has_two_to_nine_files(wing):
  folders = {path.parent for path in (ROOT / wing).rglob('*.py')}
  for folder in folders - {ROOT / 'tests'}:  # whose conftest is none of its own
    names = {path.name for path in folder.glob('*.py')} - {'__init__.py', '__main__.py'}
    assert 2 <= len(names) <= 9, folder


@pytest.mark.parametrize('wing', MAY_NOT_USE)
def test_a_wing_knows_nothing_of_what_it_does_not_need(wing):
  files = [path for path in SOURCES if wing_of(path) == wing]
  assert files
  for path in files:
    assert not {name.split('.')[0] for name in imported(path)} & MAY_NOT_USE[wing], path


def test_nobody_imports_a_command_or_a_config():
  commands = {'launch', 'configs', 'tools', 'tests'}
  for path in SOURCES:
    if wing_of(path) in MAY_USE:
      assert not {name.split('.')[0] for name in imported(path)} & commands, path


def test_only_posterior_knows_a_family_by_its_name():
  for path in SOURCES:
    if wing_of(path) != 'posterior':
      assert not [name for name in FAMILIES if f"'{name}'" in path.read_text()], path


def test_private_names_of_others_are_in_one_place():
  for path in SOURCES:
    if wing_of(path) != 'private':
      private = {name for name in imported(path) if '._' in name or 'compilation_cache' in name}
      assert not {name for name in private if not name.startswith('sparsejax')}, path


def test_the_walk_finds_the_imports_that_are_there():
  assert used_wings(PACKAGE / 'transforms' / 'pruning.py') == {'private', 'sparsity', 'transforms'}
  found = {'signals', 'needs', 'sparsity', 'posterior', 'transforms'}
  assert used_wings(PACKAGE / '__init__.py') == found
  assert 'optax' in imported(PACKAGE / 'transforms' / 'pruning.py')


def test_using_the_library_loads_nothing_else():
  program = 'import sys, sparsejax; print(*sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
  )
  loaded = set(done.stdout.split())
  assert 'sparsejax.transforms.pruning' in loaded
  wings = ('experiment', 'models', 'nn', 'compact', 'second_order', 'shipping')
  others = {f'sparsejax.{wing}' for wing in wings}
  heavy = {'flax', 'ml_collections', 'matplotlib', 'orbax', 'tensorflow_datasets', 'scipy.linalg'}
  assert not loaded & (others | heavy)


# What of JAX places an array, counts devices or maps over them. Reading a value back to the host
# (device_get) names no device.
OF_DEVICES = {
  'pmap',
  'shard_map',
  'make_mesh',
  'Mesh',
  'NamedSharding',
  'PartitionSpec',
  'PositionalSharding',
  'SingleDeviceSharding',
  'device_put',
  'device_put_replicated',
  'device_put_sharded',
  'devices',
  'local_devices',
  'device_count',
  'local_device_count',
  'pmean',
  'psum',
  'axis_index',
  'all_gather',
}


def names_of_devices(path: pathlib.Path) -> set[str]:
  """Which of `OF_DEVICES` a file takes from JAX: as jax.name, jax.lax.name or by import."""
  tree = ast.parse(path.read_text())
  modules = {name.split('.')[-1] for name in imported(path) if name.startswith('jax')} | {'jax'}
  found = {name.split('.')[-1] for name in imported(path) if name.startswith('jax.')} & OF_DEVICES
  for node in ast.walk(tree):
    if isinstance(node, ast.Attribute) and node.attr in OF_DEVICES:
      base = ast.unparse(node.value).split('.')
      if base[0] in modules:
        found.add(node.attr)
  return found


def test_only_parallel_names_pmap_or_a_device():
  assert {'pmap', 'pmean', 'NamedSharding'} <= names_of_devices(
    PACKAGE / 'experiment' / 'machine' / 'parallel.py'
  )
  # BatchNorm joins its moments over the axis that it is given, as flax's does.
  joins = {PACKAGE / 'nn' / 'normalisation.py': {'pmean'}}
  for path in [*SOURCES, *ROOT.glob('*.py'), *(ROOT / 'configs').rglob('*.py')]:
    if path != PACKAGE / 'experiment' / 'machine' / 'parallel.py':
      assert names_of_devices(path) == joins.get(path, set()), path
