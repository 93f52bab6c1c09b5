"""What a function does with each parameter, read off its jaxpr: layouts and multiply-accumulates.

Every axis of every value is a node. Where values meet entry by entry their nodes become one; a
product makes nodes of its own for what comes out, linked to the axes of the kernel that they come
from. An axis of a kernel is an input where it is summed over, an output where it goes on, a
position of a convolution, a stack where a scan runs along it or a product takes it pairwise. It is
a head where what it became is taken pairwise by a product of two values that both come from data.
"""

import contextlib
import dataclasses
import math
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from sparsejax.sparsity import tree
from sparsejax.sparsity.layout import Layout

# Values that only depend on parameters, on nothing at all, or on the examples.
PARAM, CONSTANT, DATA = 'param', 'constant', 'data'
CALLS = ('jaxpr', 'call_jaxpr', 'fun_jaxpr')
SAME_SHAPE = {'copy', 'stop_gradient', 'convert_element_type', 'reduce_precision', 'rev', 'cumsum'}
SAME_SHAPE |= {
  'cumlogsumexp',
  'cummax',
  'cummin',
  'cumprod',
  'optimization_barrier',
  'sharding_constraint',
}


class Node:
  """An axis: its size, what it is used for, and how it is split or was merged."""

  def __init__(self, size: int):
    self.size = size
    self.parent = self
    self.parts: list[Node] = []  # major first, where a reshape takes it apart or puts it together
    self.pieces: list[Node] = []  # of which it is concatenated
    self.role: str | None = None  # of an axis of a kernel
    self.became: list[Node] = []  # the axes of activations that it makes, reads or meets
    self.pairwise = False  # whether a product of two activations takes it pairwise
    self.stacks = False
    self.computed = False  # whether it comes out of a kernel

  def find(self) -> 'Node':
    node = self
    while node.parent is not node:
      node = node.parent
    return node


def same(a: Node, b: Node) -> None:
  """Makes two nodes one."""
  a, b = a.find(), b.find()
  if a is b or a.size != b.size:
    return
  b.parent = a
  a.role, a.became = a.role or b.role, a.became + b.became
  a.pairwise, a.stacks, a.computed = (
    a.pairwise or b.pairwise,
    a.stacks or b.stacks,
    a.computed or b.computed,
  )
  if not a.parts:
    a.parts = b.parts
  elif b.parts and [p.size for p in a.parts] == [p.size for p in b.parts]:
    for one, other in zip(a.parts, b.parts, strict=True):
      same(one, other)


@dataclasses.dataclass
class Value:
  """What is known of a value: an axis' node each, and what it depends on."""

  axes: list[Node]
  kind: str


@dataclasses.dataclass
class Graph:
  """What was found.

  Attributes:
    leaves: by path, the nodes of each parameter's axes.
    macs: by path, the multiply-accumulates of the products with this parameter.
    products: those of products in which no parameter is.
    unknown: why the count is none, '' where it is right.
  """

  leaves: dict[str, list[Node]]
  macs: dict[str, int]
  products: int = 0
  unknown: str = ''


def read(function: Callable[..., Any], params: Any, *examples: Any) -> Graph:
  """Returns what a function of (params, *examples) does with its parameters.

  Args:
    function: traced, never run.
    params: a pytree of arrays, or of their shapes.
    examples: arrays, or their shapes, in whatever structure the function takes.
  """
  choice = sys.modules.get('sparsejax.layers.choice')  # of nobody who has not imported it
  with choice.plain() if choice else contextlib.nullcontext():
    closed = jax.make_jaxpr(function)(params, *examples)
  named = {path: jnp.shape(leaf) for path, leaf in tree.named_leaves(params).items()}
  graph = Graph({path: [Node(n) for n in shape] for path, shape in named.items()}, {})
  reader = _Reader(graph)
  given = [Value(nodes, PARAM) for nodes in graph.leaves.values()]
  rest = closed.jaxpr.invars[len(given) :]
  given += [Value([Node(n) for n in var.aval.shape], DATA) for var in rest]
  reader.run(closed.jaxpr, given, 1)
  return graph


def layouts_of(function: Callable[..., Any], params: Any, *examples: Any) -> dict[str, Layout]:
  """Returns the layout of every parameter whose axes a function shows, for `layouts=`.

  The function is traced, not run: shapes are enough. What it does tells exactly which axes of a
  kernel are inputs, outputs, positions, heads, and stacks of layers, whatever library made it.

  Args:
    function: of (params, *examples), such as `lambda p, x: model.apply({'params': p}, x)`.
    params: a pytree of arrays, or of their shapes.
    examples: what else the function takes.

  Returns:
    {expression that matches one path: layout}. A parameter that is used in two ways at once, as a
    table that is also the last layer, is left out.

  Example:
    >>> def function(params, x):
    ...   return jax.nn.relu(x @ params['a'].T) @ params['b']
    >>> params = {'a': jnp.ones((5, 3)), 'b': jnp.ones((5, 2))}
    >>> [layout.text for layout in layouts_of(function, params, jnp.ones((1, 3))).values()]
    ['out in', 'in out']
  """
  found = {}
  for path, nodes in read(function, params, *examples).leaves.items():
    if (layout := _layout(nodes)) is not None:
      found[f'^{re.escape(path)}$'] = layout
  return found


def positions_of(function: Callable[..., Any], params: Any, *examples: Any) -> dict[str, int]:
  """Returns how often a function applies each weight of a parameter to the examples, by path.

  For `sparsity_report` and `prune_to(macs=...)`; give a batch of one to count for one example.

  Raises:
    ValueError: a number of repetitions that the program does not fix.

  Example:
    >>> positions_of(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 2))}, jnp.ones((7, 3)))
    {'w': 7}
  """
  return counts(function, params, *examples)[0]


def counts(function: Callable[..., Any], params: Any, *examples: Any) -> tuple[dict[str, int], int]:
  """Returns `positions_of`, in the program's order, and what products without a parameter cost.

  Raises:
    ValueError: a number of repetitions that the program does not fix.
  """
  graph = read(function, params, *examples)
  if graph.unknown:
    raise ValueError(f'multiply-accumulates are not known: {graph.unknown}')
  sizes = {path: math.prod(node.size for node in nodes) for path, nodes in graph.leaves.items()}
  in_order = [*graph.macs, *(path for path in sizes if path not in graph.macs)]
  return {
    path: graph.macs.get(path, 0) // sizes[path] for path in in_order if sizes[path]
  }, graph.products


# From nodes to layouts


def _layout(nodes: Sequence[Node]) -> Layout | None:
  """The layout of a leaf whose axes all have a role; None of another."""
  axes = [_roles(node) for node in nodes]
  if not axes or any(not roles for roles, _ in axes):
    return None
  if sum(roles.count('head') for roles, _ in axes) > 1:
    axes = [
      ([{'head': side}.get(r, r) for r in roles], heads)
      for roles, heads in axes
      for side in [_side(roles)]
    ]
  if all(roles == ['position'] or roles == ['stack'] for roles, _ in axes):
    last = max(i for i, (roles, _) in enumerate(axes) if roles == ['position'])
    axes[last] = ['out'], None  # what is added to an input or rescales it
  words, head = [], None
  for roles, heads in axes:
    if len(roles) > 1 and len(set(roles)) == 1:
      roles = roles[:1]
    if len(roles) > 2 or (len(roles) == 2 and 'head' not in roles):
      return None
    words.append(roles[0] if len(roles) == 1 else f'({" ".join(roles)})')
    head = heads if len(roles) == 2 else head
  return Layout(' '.join(words), head)


def _side(roles) -> str:
  return next((role for role in roles if role in ('in', 'out')), 'out')


def _roles(node: Node) -> tuple[list[str], int | None]:
  """The roles of an axis, several where it fuses them, and the number of heads among them."""
  node = node.find()
  if node.role is None:
    if node.parts and all(part.find().role for part in node.parts):
      found = [_roles(part) for part in node.parts]
      roles = [role for one, _ in found for role in one]
      heads = next(
        (p.size for p, (one, _) in zip(node.parts, found, strict=True) if one == ['head']), None
      )
      return roles, heads
    return [], None
  if node.role == 'conflict':
    return [], None
  if node.role not in ('in', 'out'):
    return [node.role], None
  for became in node.became:
    became = became.find()
    if became.stacks and node.role == 'out':
      return ['stack'], None
    if became.pairwise:
      return ['head'], None
    parts = [part.find() for part in became.parts]
    if any(part.pairwise for part in parts) and len(parts) == 2:
      roles = ['head' if part.pairwise else node.role for part in parts]
      return roles, next(part.size for part in parts if part.pairwise)
  return [node.role], None


class _Reader:
  """Walks a jaxpr once, equation by equation."""

  def __init__(self, graph: Graph):
    self.graph = graph

  def run(self, jaxpr, given: Sequence[Value], times: int) -> list[Value]:
    """Returns the values that come out of a jaxpr whose equations run so many times."""
    env: dict[Any, Value] = {}
    for var in jaxpr.constvars:
      env[var] = self._fresh(var.aval, CONSTANT)
    env |= dict(zip(jaxpr.invars, given, strict=True))

    def value(atom) -> Value:
      return self._fresh(atom.aval, CONSTANT) if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
      outs = self._equation(eqn, [value(atom) for atom in eqn.invars], times)
      env |= dict(zip(eqn.outvars, outs, strict=True))
    return [value(atom) for atom in jaxpr.outvars]

  def _fresh(self, aval, kind: str) -> Value:
    return Value([Node(n) for n in getattr(aval, 'shape', ())], kind)

  def _equation(self, eqn, ins: list[Value], times: int) -> list[Value]:
    name = eqn.primitive.name
    special = getattr(self, f'_{name}', None)
    if special is not None:
      return special(eqn, ins, times)
    for key in CALLS:
      if key in eqn.params and name not in ('while', 'cond', 'scan'):
        inner = eqn.params[key]
        inner = getattr(inner, 'jaxpr', inner)
        return self.run(inner, ins, times)
    kind = _kind(ins)
    outs = [self._fresh(var.aval, kind) for var in eqn.outvars]
    for out in outs:
      for value in ins:
        if len(value.axes) == len(out.axes) and (name in SAME_SHAPE or len(value.axes)):
          self._meet(value, out)
    return outs

  def _meet(self, value: Value, out: Value) -> None:
    """Entry by entry: of the same kind the axes are one; a parameter meets an activation."""
    for mine, theirs in zip(value.axes, out.axes, strict=True):
      if mine.size != theirs.size or mine.size == 1:
        continue
      if value.kind == PARAM and out.kind == DATA:
        mine.find().became.append(theirs)
        self._use(mine, 'out' if theirs.find().computed else 'position', weak=True)
      else:
        same(theirs, mine)

  def _use(self, node: Node, role: str, *, weak: bool = False) -> None:
    """Notes what an axis of a parameter is; what it is added to is said before a product's word."""
    root = node.find()
    for piece in root.pieces:
      self._use(piece, role, weak=weak)
    for part in root.parts or [root]:
      part = part.find()
      if part.role is None or (part.role == 'position' and weak):
        part.role = role
      elif part.role != role and not weak and part.role != 'stack':
        part.role = 'conflict'

  # Shapes

  def _transpose(self, eqn, ins, times):
    [value] = ins
    return [Value([value.axes[i] for i in eqn.params['permutation']], value.kind)]

  def _squeeze(self, eqn, ins, times):
    gone = eqn.params['dimensions']
    return [Value([n for i, n in enumerate(ins[0].axes) if i not in gone], ins[0].kind)]

  def _broadcast_in_dim(self, eqn, ins, times):
    value = ins[0]
    out = self._fresh(eqn.outvars[0].aval, value.kind)
    for axis, place in enumerate(eqn.params['broadcast_dimensions']):
      if value.axes[axis].size == out.axes[place].size:
        out.axes[place] = value.axes[axis]
    return [out]

  def _reshape(self, eqn, ins, times):
    [value, *_] = ins
    out = self._fresh(eqn.outvars[0].aval, value.kind)
    for old, new in _factors([n.size for n in value.axes], [n.size for n in out.axes]):
      before, after = [value.axes[i] for i in old], [out.axes[i] for i in new]
      if len(before) == len(after) == 1:
        out.axes[new[0]] = before[0]
      elif len(before) == 1:
        root = before[0].find()
        if [part.size for part in root.parts] == [node.size for node in after]:
          for i, part in zip(new, root.parts, strict=True):
            out.axes[i] = part
        elif not root.parts:
          root.parts = after
          for node in after:
            node.computed = root.computed
      elif len(after) == 1:
        after[0].parts = [node.find() for node in before]
        after[0].computed = any(node.find().computed for node in before)
    return [out]

  def _concatenate(self, eqn, ins, times):
    along = eqn.params['dimension']
    out = self._fresh(eqn.outvars[0].aval, _kind(ins))
    out.axes[along].pieces = [value.axes[along] for value in ins]
    out.axes[along].computed = any(value.axes[along].find().computed for value in ins)
    for value in ins:
      rest = [i for i in range(len(out.axes)) if i != along]
      self._meet(*(Value([v.axes[i] for i in rest], v.kind) for v in (value, out)))
    return [out]

  def _reduce(self, eqn, ins, times):
    axes = eqn.params.get('axes', ())
    value = ins[0]
    kept = [n for i, n in enumerate(value.axes) if i not in axes]
    return [Value(list(kept), _kind(ins)) for _ in eqn.outvars]

  _reduce_sum = _reduce_max = _reduce_min = _reduce_prod = _reduce_and = _reduce_or = _reduce
  _argmax = _argmin = _reduce

  # Products

  def _dot_general(self, eqn, ins, times):
    (left_sum, right_sum), (left_pair, right_pair) = eqn.params['dimension_numbers']
    left, right = ins
    out = self._fresh(eqn.outvars[0].aval, _kind(ins))
    frees = [
      [i for i in range(len(v.axes)) if i not in (*summed, *paired)]
      for v, summed, paired in ((left, left_sum, left_pair), (right, right_sum, right_pair))
    ]
    places = iter(range(len(out.axes)))
    pairs = [(next(places), a, b) for a, b in zip(left_pair, right_pair, strict=True)]
    goes_on = [[(next(places), i) for i in free] for free in frees]
    macs = (
      times * math.prod(n.size for n in out.axes) * math.prod(left.axes[i].size for i in left_sum)
    )
    kinds = {left.kind, right.kind}
    if kinds == {DATA}:
      self.graph.products += macs
      for place, a, b in pairs:
        same(left.axes[a], right.axes[b])
        out.axes[place] = left.axes[a]
        left.axes[a].find().pairwise = True
      for value, ends in zip(ins, goes_on, strict=True):
        for place, i in ends:
          out.axes[place] = value.axes[i]
      return [out]
    if kinds == {DATA, PARAM}:
      kernel, other = (left, right) if left.kind == PARAM else (right, left)
      first = kernel is left
      self._count(kernel, macs)
      for place, a, b in pairs:
        mine, theirs = (left.axes[a], right.axes[b]) if first else (right.axes[b], left.axes[a])
        self._use(mine, 'stack')
        theirs.find().stacks = True
        out.axes[place] = theirs
      for a, b in zip(left_sum, right_sum, strict=True):
        mine, theirs = (left.axes[a], right.axes[b]) if first else (right.axes[b], left.axes[a])
        self._use(mine, 'in')
        self._link(mine, theirs)
      mine, theirs = goes_on if first else goes_on[::-1]
      for place, i in theirs:
        out.axes[place] = other.axes[i]
      for place, i in mine:
        self._use(kernel.axes[i], 'out')
        out.axes[place].computed = True
        self._link(kernel.axes[i], out.axes[place])
      return [out]
    for value, ends in zip(ins, goes_on, strict=True):
      for place, i in ends:
        out.axes[place] = value.axes[i]
    return [out]

  def _link(self, mine: Node, activation: Node) -> None:
    """Notes which axis of activations an axis of a kernel makes or reads, part by part."""
    root, other = mine.find(), activation.find()
    if not root.parts:
      root.became.append(other)
      return
    if not other.parts:
      other.parts = [Node(part.size) for part in root.parts]
      for part in other.parts:
        part.computed = other.computed
    if [p.size for p in other.parts] == [p.size for p in root.parts]:
      for one, made in zip(root.parts, other.parts, strict=True):
        one.find().became.append(made)

  def _conv_general_dilated(self, eqn, ins, times):
    image, kernel = ins
    out = self._fresh(eqn.outvars[0].aval, _kind(ins))
    numbers = eqn.params['dimension_numbers']
    (to, of, *window), (example, channel, *_) = numbers.rhs_spec, numbers.lhs_spec
    out.axes[numbers.out_spec[0]] = image.axes[example]
    if kernel.kind != PARAM or image.kind != DATA:
      if DATA in (kernel.kind, image.kind) and PARAM in (kernel.kind, image.kind):
        self.graph.unknown = self.graph.unknown or 'a convolution of a parameter by data'
      return [out]
    sizes = [kernel.axes[i].size for i in window]
    groups = eqn.params['feature_group_count']
    if any(n > 1 for n in eqn.params['lhs_dilation']):  # transposed: the zeros between are none
      each = math.prod(sizes) * kernel.axes[to].size // groups
      macs = math.prod(n.size for n in image.axes) * each
    else:
      macs = math.prod(n.size for n in out.axes) * math.prod(sizes) * kernel.axes[of].size
    self._count(kernel, times * macs)
    for i in window:
      self._use(kernel.axes[i], 'position')
    self._use(kernel.axes[of], 'in')
    self._use(kernel.axes[to], 'out')
    self._link(kernel.axes[to], out.axes[numbers.out_spec[1]])
    out.axes[numbers.out_spec[1]].computed = True
    if groups == 1:
      self._link(kernel.axes[of], image.axes[channel])
    return [out]

  def _gather(self, eqn, ins, times):
    operand, _ = ins
    out = self._fresh(eqn.outvars[0].aval, _kind(ins))
    numbers = eqn.params['dimension_numbers']
    sizes = eqn.params['slice_sizes']
    through = [i for i in range(len(operand.axes)) if i not in numbers.collapsed_slice_dims]
    for place, i in zip(numbers.offset_dims, through, strict=False):
      if sizes[i] == operand.axes[i].size and operand.kind == PARAM and out.kind == DATA:
        self._use(operand.axes[i], 'out')
        self._link(operand.axes[i], out.axes[place])
        out.axes[place].computed = True
      elif sizes[i] == operand.axes[i].size:
        out.axes[place] = operand.axes[i]
    if operand.kind == PARAM and out.kind == DATA:
      for i in numbers.collapsed_slice_dims:
        self._use(operand.axes[i], 'in')
    return [out]

  def _count(self, kernel: Value, macs: int) -> None:
    """Adds to the parameter that the kernel is made of, or to each that it is concatenated of."""
    whole = next((node.find() for node in kernel.axes if node.find().pieces), None)
    if whole is not None:
      for piece in whole.pieces:
        self._count(Value([piece], PARAM), macs * piece.size // whole.size)
      return
    roots = {id(root) for node in kernel.axes for root in _family(node)}
    shared = {
      path: sum(node.size for node in nodes if any(id(r) in roots for r in _family(node)))
      for path, nodes in self.graph.leaves.items()
    }
    path = max(shared, key=lambda p: (shared[p] > 0, len(self.graph.leaves[p]), shared[p]))
    if not shared[path]:
      self.graph.unknown = self.graph.unknown or 'a product with no single parameter'
      return
    self.graph.macs[path] = self.graph.macs.get(path, 0) + macs

  # Loops and branches

  def _scan(self, eqn, ins, times):
    p = eqn.params
    consts, carried = p['num_consts'], p['num_carry']
    inner = [*ins[:consts]]
    for value in ins[consts : consts + carried]:
      inner.append(Value(list(value.axes), DATA))
    for value in ins[consts + carried :]:
      along, *rest = value.axes
      if value.kind == PARAM:
        self._use(along, 'stack')
      inner.append(Value(rest, value.kind))
    outs = self.run(p['jaxpr'].jaxpr, inner, times * p['length'])
    results = []
    for i, out in enumerate(outs):
      if i < carried:
        for a, b in zip(out.axes, inner[consts + i].axes, strict=True):
          same(a, b)
        results.append(Value(out.axes, DATA))
      else:
        results.append(Value([Node(p['length']), *out.axes], out.kind))
    return results

  def _while(self, eqn, ins, times):
    p = eqn.params
    consts = p['cond_nconsts'], p['body_nconsts']
    carried = [Value(list(v.axes), DATA) for v in ins[sum(consts) :]]
    before = dict(self.graph.macs), self.graph.products
    outs = self.run(p['body_jaxpr'].jaxpr, [*ins[consts[0] : sum(consts)], *carried], times)
    if (self.graph.macs, self.graph.products) != before:
      self.graph.unknown = (
        self.graph.unknown or 'a while loop makes products, how often is not fixed'
      )
    for out, value in zip(outs, carried, strict=True):
      for a, b in zip(out.axes, value.axes, strict=True):
        same(a, b)
    return [Value(out.axes, DATA) for out in outs]

  def _cond(self, eqn, ins, times):
    found, counts = [], []
    before = dict(self.graph.macs), self.graph.products
    for branch in eqn.params['branches']:
      self.graph.macs, self.graph.products = dict(before[0]), before[1]
      found.append(self.run(branch.jaxpr, ins[1:], times))
      counts.append((self.graph.macs, self.graph.products))
    if any(count != counts[0] for count in counts):
      self.graph.unknown = (
        self.graph.unknown or 'the branches of a condition make different products'
      )
    for other in found[1:]:
      for one, two in zip(found[0], other, strict=True):
        for a, b in zip(one.axes, two.axes, strict=True):
          same(a, b)
    return [Value(out.axes, DATA) for out in found[0]]


def _family(node: Node) -> list[Node]:
  root = node.find()
  return [root, *(part.find() for part in root.parts)]


def _kind(values: Sequence[Value]) -> str:
  kinds = {value.kind for value in values}
  return DATA if DATA in kinds else PARAM if PARAM in kinds else CONSTANT


def _factors(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
  """Which axes of a reshape hold the same entries, sizes of 1 aside."""
  left = [i for i, n in enumerate(old) if n != 1]
  right = [i for i, n in enumerate(new) if n != 1]
  found, i, j = [], 0, 0
  while i < len(left) and j < len(right):
    a, b = [left[i]], [right[j]]
    size, other = old[left[i]], new[right[j]]
    i, j = i + 1, j + 1
    while size != other:
      if size < other:
        size *= old[left[i]]
        a.append(left[i])
        i += 1
      else:
        other *= new[right[j]]
        b.append(right[j])
        j += 1
    found.append((a, b))
  return found
