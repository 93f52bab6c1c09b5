"""What is read from files and sockets is data: nothing in it is ever run or unpickled."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = [
  *(ROOT / 'sparsejax').rglob('*.py'),
  *(ROOT / 'configs').rglob('*.py'),
  *(ROOT / 'tools').rglob('*.py'),
  ROOT / 'launch.py',
]
MODULES = {
  *('pickle', 'cPickle', '_pickle', 'cloudpickle', 'dill', 'joblib', 'marshal', 'shelve'),
  *('yaml', 'code', 'codeop', 'runpy'),
}
CALLS = {
  *('eval', 'exec', 'compile', '__import__', 'np.load', 'numpy.load', 'torch.load'),
  *('os.system', 'os.popen'),
}
METHODS = {'exec_module', 'load_module', 'read_pickle'}
# What may be called by such a name, and why.
ALLOWED = {
  ('experiment/config/loading.py', 'exec_module'): "a config is a program, the person's own",
}


def wrong_in(source):
  """Yields what runs or unpickles, by name."""
  tree = ast.parse(source)
  for node in ast.walk(tree):
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module] if isinstance(node, ast.ImportFrom) else []
    yield from (name for name in names if name.partition('.')[0] in MODULES)
  for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
    function, given = ast.unparse(call.func), {k.arg: ast.unparse(k.value) for k in call.keywords}
    method = function.rpartition('.')[2]
    is_plain = given.get('allow_pickle') == 'False'
    if (function in CALLS and not is_plain) or method in METHODS:
      yield method if method in METHODS else function
    if given.get('shell', 'False') != 'False' or given.get('allow_pickle', 'False') != 'False':
      yield f'{function} with {given}'


def place_of(path):
  return str(path.relative_to(ROOT)).removeprefix('sparsejax/')


@pytest.mark.parametrize('path', SOURCES, ids=place_of)
def test_nothing_that_is_read_is_run(path):
  found = set(wrong_in(path.read_text()))
  assert found <= {name for place, name in ALLOWED if place == place_of(path)}, found


@pytest.mark.parametrize('place', ALLOWED, ids=': '.join)
def test_what_is_allowed_is_there(place):
  path = ROOT / 'sparsejax' / place[0]
  assert place[1] in set(wrong_in(path.read_text()))


@pytest.mark.parametrize(
  'source',
  [
    *('import pickle', 'from yaml import safe_load', 'np.load(path)', 'eval(text)'),
    *('np.load(path, allow_pickle=True)', 'run(line, shell=True)', 'torch.load(path)'),
  ],
)
def test_the_walk_finds_what_is_there(source):
  assert list(wrong_in(source))
