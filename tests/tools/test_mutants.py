"""What tools/mutants.py picks and finds again; that it tries mutants is seen by running it."""

import ast
import json
import pathlib

import pytest

from tools import faults, mutants

ROOT = pathlib.Path(__file__).parents[2]


def seeded(source):
  """{operator: the file after it} of every mutant of a file."""
  found = faults.mutants_of('file.py', source)
  return {m['operator']: faults.replaced(source, m, m['new']) for m in found}


@pytest.mark.parametrize(
  ('line', 'operator', 'new'),
  [
    ('return a < b', 'comparison', 'return (a <= b)'),
    ('return a == b', 'comparison', 'return (a != b)'),
    ('return f(a + b)', 'arithmetic', 'return f((a - b))'),
    ('return a and b', 'logic', 'return (a or b)'),
    ('x[0] = b', 'constant', 'x[(1)] = b'),
    ('return f(a=True)', 'flag', 'return f(a=(False))'),
    ('return not a', 'not dropped', 'return (a)'),
    ('return jnp.minimum(a, b)', 'extreme', 'return (jnp.maximum)(a, b)'),
    ('return f(a, axis=-1)', 'axis', 'return f(a, axis=(0))'),
    ('return "ä", a if b else c', 'condition', 'return "ä", a if (not b) else c'),
  ],
)
def test_every_operator_changes_its_expression_alone(line, operator, new):
  assert seeded(f'def f():\n  {line}\n')[operator] == f'def f():\n  {new}\n'


def test_texts_errors_annotations_and_what_runs_at_import_stay():
  source = '''"""Module."""
LIMIT = 3
if TYPE_CHECKING:
  import x
@decorated(1)
def f(a: X[1] = 2) -> X[3]:
  """Text."""
  b: X[4]
  c = 'of ' + f'{a + 1}'
  if not_nice(a):
    raise ValueError(a - 1)
'''
  assert seeded(source).keys() == {'condition'}


def test_a_mutant_is_found_again_where_its_lines_have_moved_and_nowhere_else():
  source = 'def f():\n  a = 1\n  return g(\n    a > b\n  )\n'
  (mutant,) = [m for m in faults.mutants_of('x.py', source) if m['operator'] == 'comparison']
  moved = f'# One more line.\n{source}\ndef g():\n  return k(\n    a > b)\n'
  assert faults.replaced(moved, mutant, mutant['new']) == moved.replace('a > b\n', '(a >= b)\n')
  assert faults.replaced(source * 2, mutant, mutant['new']) is None
  assert faults.replaced(source.replace('a >', 'c >'), mutant, mutant['new']) is None


def test_the_choice_is_the_seeds_and_spread_over_the_folders():
  chosen = faults.choose(ROOT, 20, seed=1)
  assert chosen == faults.choose(ROOT, 20, seed=1) != faults.choose(ROOT, 20, seed=2)
  paths = [mutant['path'] for mutant in chosen]
  assert len(set(paths)) == 20
  folders = [str(pathlib.Path(path).parent) for path in paths]
  counts = {folders.count(folder) for folder in folders}
  assert max(counts) - min(counts) <= 1
  for mutant in chosen:
    source = (ROOT / mutant['path']).read_text()
    for by in (mutant['new'], mutant['probe']):
      assert ast.dump(ast.parse(faults.replaced(source, mutant, by))) != ast.dump(ast.parse(source))


def test_what_only_the_old_suite_notices_is_printed(tmp_path, capsys):
  chosen = faults.mutants_of('x.py', 'def f():\n  return a < 1\n')
  for name, verdicts in {'old': ('killed', 'killed'), 'new': ('survived', 'killed')}.items():
    results = {str(i): {'verdict': verdict} for i, verdict in enumerate(verdicts)}
    (tmp_path / name).write_text(json.dumps({'results': results}))
  mutants.compare(chosen, tmp_path / 'old', tmp_path / 'new')
  *_, head, old, new = capsys.readouterr().out.splitlines()
  assert head == 'killed, then survived: x.py:2 f, comparison:'
  assert (old.split(), new.split()) == (
    ['old', 'return', 'a', '<', '1'],
    ['new', 'return', '(a', '<=', '1)'],
  )
