"""Small faults to seed in the source, and the choice of some of them.

A fault consists of a few lines with their neighbours and their replacement, so that it is found
again in a later commit. It changes an expression in a function, but not in strings, errors or
annotations.
"""

import ast
import collections
import random

PACKAGE = 'sparsejax'
LEFT_OUT = 'sparsejax/benchmarks/torch_peer'  # it runs only with PyTorch
COMPARISONS = {
  ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
  ast.NotEq: ast.Eq,
}  # fmt: skip
ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
LOGIC = {ast.And: ast.Or, ast.Or: ast.And}
EXTREMES = {'min': 'max', 'max': 'min', 'minimum': 'maximum', 'maximum': 'minimum'}
TEXTS = (ast.JoinedStr, ast.List, ast.Tuple)  # `+` joins these


def faults(node):
  """Yields (operator, replaced expression, replacement) for a node."""
  match node:
    case ast.Compare(ops=[op, *others]) if type(op) in COMPARISONS:
      ops = [COMPARISONS[type(op)](), *others]
      yield 'comparison', node, ast.Compare(node.left, ops, node.comparators)
    case ast.BinOp(left, op, right) if type(op) in ARITHMETIC and not (joins(left) or joins(right)):
      yield 'arithmetic', node, ast.BinOp(left, ARITHMETIC[type(op)](), right)
    case ast.BoolOp(op, values):
      yield 'logic', node, ast.BoolOp(LOGIC[type(op)](), values)
    case ast.Constant(bool() as value):
      yield 'flag', node, ast.Constant(not value)
    case ast.Constant(int() | float() as value):
      yield 'constant', node, ast.Constant(value + 1)
    case ast.UnaryOp(ast.Not(), operand):
      yield 'not dropped', node, operand
    case ast.Call(ast.Name(name) as called) if name in EXTREMES:
      yield 'extreme', called, ast.Name(EXTREMES[name])
    case ast.Call(ast.Attribute(of, name) as called) if name in EXTREMES:
      yield 'extreme', called, ast.Attribute(of, EXTREMES[name])
    case ast.keyword('axis', ast.Constant(int()) | ast.UnaryOp(ast.USub()) as axis):
      yield 'axis', axis, ast.Constant(int(ast.unparse(axis) != '0') ^ 1)
    case ast.If(test) | ast.IfExp(test):
      yield 'condition', test, ast.UnaryOp(ast.Not(), test)


def joins(node):
  return isinstance(node, TEXTS) or isinstance(getattr(node, 'value', None), str)


class Sites(ast.NodeVisitor):
  """Collects the faults in the functions of a file, but not in strings, errors or annotations."""

  def __init__(self):
    self.names, self.functions, self.found = [], 0, []

  def visit(self, node):
    kind = type(node)
    if self.functions:
      self.found += [('.'.join(self.names), *fault) for fault in faults(node)]
    if kind in (ast.FunctionDef, ast.ClassDef):
      self.names.append(node.name)
      self.functions += kind is ast.FunctionDef
      self.visit_all(node.body)  # neither decorators, defaults nor annotations
      self.functions -= kind is ast.FunctionDef
      self.names.pop()
    elif kind is ast.match_case:
      self.visit_all(node.body)
    elif kind is ast.AnnAssign:
      self.visit_all(filter(None, [node.value]))
    elif kind not in (ast.Raise, ast.JoinedStr):
      self.generic_visit(node)

  def visit_all(self, nodes):
    for node in nodes:
      self.visit(node)


def mutants_of(path, source):
  """Returns every mutant of a file as a dictionary with its place and its old and new lines."""
  sites = Sites()
  sites.visit(ast.parse(source))
  lines = ['', *source.splitlines(), '']
  found = []
  for function, operator, node, replacement in sites.found:
    first, last = node.lineno, node.end_lineno
    old = lines[first : last + 1]
    # Columns count bytes.
    start = old[0].encode()[: node.col_offset].decode()
    end = old[-1].encode()[node.end_col_offset :].decode()
    expression = '\n'.join(old)[len(start) :].removesuffix(end)
    text = ast.unparse(ast.fix_missing_locations(replacement))
    hit = f"(__import__('mutant_probe').hit(NUMBER) or ({expression}))"
    found.append({
      'path': str(path), 'function': function, 'operator': operator, 'line': first,
      'before': lines[first - 1], 'old': old, 'after': lines[last + 1],
      'new': [f'{start}({text}){end}'], 'probe': f'{start}{hit}{end}'.splitlines(),
    })  # fmt: skip
  return found


def choose(root, count, seed):
  """Returns mutants spread evenly over the folders, one per file, with random operators.

  Only lines that are unique together with their neighbours are changed, to be found again later.
  """
  draw = random.Random(seed)
  rooms = collections.defaultdict(list)
  for path in sorted((root / PACKAGE).rglob('*.py')):
    name = path.relative_to(root)
    if LEFT_OUT not in str(name):
      source = path.read_text()
      found = [m for m in mutants_of(name, source) if replaced(source, m, m['new']) is not None]
      rooms[str(name.parent)] += found
  chosen = []
  while len(chosen) < count:
    names = sorted(filter(rooms.get, rooms))
    room = names[len(chosen) % len(names)]
    operator = draw.choice(sorted({mutant['operator'] for mutant in rooms[room]}))
    chosen.append(draw.choice([m for m in rooms[room] if m['operator'] == operator]))
    rooms[room] = [m for m in rooms[room] if m['path'] != chosen[-1]['path']]
  return chosen


def replaced(source, mutant, by):
  """Returns a file's text with a mutant's lines replaced, or None unless they occur just once."""
  lines = ['', *source.splitlines(), '']
  size = len(mutant['old'])
  at = [i for i in range(1, len(lines) - size) if lines[i : i + size] == mutant['old']]
  near = [
    i for i in at if (lines[i - 1], lines[i + size]) == (mutant['before'], mutant['after'])
  ] or at
  if len(near) != 1:
    return None
  lines[near[0] : near[0] + size] = by
  return '\n'.join(lines[1:])
