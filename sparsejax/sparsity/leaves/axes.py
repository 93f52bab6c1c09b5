"""Infers the layout of a leaf from node types, names, and the leaves beside it.

An ambiguous leaf raises an error, whose message shows how to give the layout.
"""

import collections
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.sparsity.leaves import kinds, tree
from sparsejax.sparsity.leaves.layout import Layout, of_text

Given = tuple[tuple[str, Layout], ...]

PROJECTIONS = re.compile(r'^(query|key|value|[qkv]|[qkv]_proj|(query|key|value)_proj(ection)?)$')
OUTPUT_PROJECTIONS = re.compile(r'^(out|o|attn_out|out_proj|o_proj|output|output_proj(ection)?)$')
CONVOLUTION = re.compile('conv', re.IGNORECASE)
TRANSPOSED = re.compile('transpose', re.IGNORECASE)
DENSE = re.compile('dense|linear|general', re.IGNORECASE)
LARGEST_WINDOW = 11  # for a convolution that no name identifies, as in AlexNet


def given(layouts: Mapping[str, str | Layout] | Given | None) -> Given:
  """Returns the layouts that a user gave, {pattern of a path: layout}, checked and hashable."""
  if isinstance(layouts, tuple):
    return layouts
  layouts = {} if layouts is None else layouts
  if not isinstance(layouts, Mapping):
    raise ValueError(
      f'layouts={layouts!r} must be a dict with expressions over paths as keys, such as '
      "{'query': 'in head out'}"
    )
  found = []
  for pattern, value in layouts.items():
    if not isinstance(pattern, str) or not isinstance(value, str | Layout):
      raise ValueError(
        f'layouts={{{pattern!r}: {value!r}}} must have an expression over paths, a string, and a '
        "Layout or its words, such as 'in head out'"
      )
    tree.patterns(pattern, 'layouts')
    found.append((pattern, of_text(value)))
  return tuple(found)


def layouts(params: Any, paths: Iterable[str], layouts: Given = ()) -> dict[str, Layout]:
  """Returns {path: layout} for the leaves at these paths.

  Args:
    params: any pytree of arrays, or of their shapes.
    paths: the paths of those leaves.
    layouts: the layouts that the user gave; the first pattern that matches a path counts.

  Raises:
    ValueError: if the axes of a leaf are ambiguous, a pattern matches no leaf, or a layout does not
      fit its leaf.

  Example:
    >>> params = {'query': {'kernel': jnp.ones((16, 4, 8)), 'bias': jnp.ones((4, 8))}}
    >>> layouts(params, ['query/kernel'])
    {'query/kernel': Layout(text='in head out', head=None)}
  """
  shapes = {path: jnp.shape(leaf) for path, leaf in tree.named_leaves(params).items()}
  for pattern, _ in layouts:
    if shapes and not any(re.search(pattern, path) for path in shapes):
      raise ValueError(f"layouts: '{pattern}' matches no parameter; there are: {', '.join(shapes)}")
  nodes = kinds.equinox_nodes(params)
  named = _Named(shapes, nodes)
  found = {}
  for path in paths:
    layout = (
      _given_layout(path, layouts) or _node_layout(path, shapes[path], nodes) or named.layout(path)
    )
    layout.check(path, shapes[path])
    found[path] = layout
  return found


def kernels(params: Any, layouts: Given = ()) -> dict[str, Any]:
  """Returns {path: leaf} of the kernels, without those whose given layout has no inputs.

  Example:
    >>> params = {'w': jnp.ones((3, 4, 4)), 'alpha': jnp.ones((3, 4))}
    >>> list(kernels(params)), list(kernels(params, given({'alpha': 'stack out'})))
    (['alpha', 'w'], ['w'])
  """
  return {
    path: leaf for path, leaf in tree.kernels(params).items() if _may_be_kernel(path, layouts)
  }


def choose(params: Any, which: tree.Choice, exclude: Sequence[str], layouts: Given) -> Any:
  """Returns `tree.choose`, with only those kernels that `kernels` returns."""
  chosen = tree.choose(params, which, exclude)
  if which != 'kernels':
    return chosen
  found = [c and _may_be_kernel(path, layouts) for path, c in tree.named_leaves(chosen).items()]
  return jax.tree.unflatten(jax.tree.structure(chosen), found)


def _given_layout(path: str, layouts: Given) -> Layout | None:
  """Returns the layout that the user gave for a leaf: the first whose pattern matches, or None."""
  return next((layout for pattern, layout in layouts if re.search(pattern, path)), None)


def _may_be_kernel(path: str, layouts: Given) -> bool:
  """Returns whether a leaf has no given layout, or one with inputs."""
  layout = _given_layout(path, layouts)
  return layout is None or any(factor.side == 'in' for factor in layout.factors)


def _node_layout(path: str, shape: tuple[int, ...], nodes: kinds.Nodes) -> Layout | None:
  """Returns the layout of a leaf of an Equinox layer, which has outputs first.

  It is None if the leaf is in no such layer, or the layer's kind or the leaf's rank is not known.
  """
  parent, name = tree.module_of(path), _last(path)
  node = nodes.get(parent)
  if node is None:
    return None
  kind = type(node).__name__
  if kind == 'WeightNorm' and name == 'g':
    base = ['out'] + ['in'] * (len(shape) - 1)
  elif name.startswith('bias') or kinds.kind(path, shape, nodes) == kinds.SCALE:
    base = ['out'] + ['position'] * getattr(node, 'num_spatial_dims', 0)
    base = base if kind.startswith('Conv') else ['out'] * getattr(node, 'ndim', 1)
  elif kind == 'Embedding':
    base = ['in', 'out']
  elif kind == 'Linear':
    base = _attention_axes(parent, nodes) or ['out', 'in']
  elif kind.startswith('Conv'):
    base = ['out', 'in'] + ['position'] * node.num_spatial_dims
  elif name.startswith('weight'):  # as in recurrent cells
    base = ['out', 'in']
  else:
    return None
  stacks = len(shape) - len(base)
  if stacks < 0:
    return None
  text = ' '.join(['stack'] * stacks + base)
  heads = nodes[tree.module_of(parent)].num_heads if '(' in text else None
  return Layout(text, heads)


def _attention_axes(layer: str, nodes: kinds.Nodes) -> list[str] | None:
  """Returns the axes of a projection in Equinox attention, with fused heads; None elsewhere."""
  if type(nodes.get(tree.module_of(layer))).__name__ != 'MultiheadAttention':
    return None
  return ['out', '(head in)'] if _last(layer) == 'output_proj' else ['(head out)', 'in']


class _Named:
  """Layouts of leaves outside of known nodes, from their names and the leaves beside them."""

  def __init__(self, shapes: Mapping[str, tuple[int, ...]], nodes: kinds.Nodes):
    self._shapes = shapes
    self._kinds = {path: kinds.kind(path, shape, nodes) for path, shape in shapes.items()}
    self._stack_of = functools.cache(self._stack_in)
    self._below = collections.defaultdict(list)  # the leaves in each module, at any depth
    for path in shapes:
      module = path
      while module:
        module = tree.module_of(module)
        self._below[module].append(path)
    kernels = [path for path, kind in self._kinds.items() if kind == kinds.KERNEL]
    self._kernels_in = collections.Counter(map(tree.module_of, kernels))
    self._beside_equinox = bool(nodes)
    # {name of a matrix: how often the bias beside one implies each order of its sides}.
    self._sides_of_name = collections.defaultdict(collections.Counter)
    for path in kernels:
      if len(shapes[path]) != 2:
        continue
      sides = _sides_by_bias(shapes[path], self._bias(path))
      if sides:
        self._sides_of_name[_last(path)][sides] += 1

  def layout(self, path: str) -> Layout:
    shape, kind = self._shapes[path], self._kinds[path]
    if kind == kinds.KERNEL:
      texts = self._kernel_layouts(path)
    else:
      last = (
        ['in'] * (len(shape) - 1) + ['out'] if kind == kinds.EMBEDDING else ['out'] * len(shape)
      )
      stack = self._stack_of(tree.module_of(path))
      texts = [' '.join(last)]
      axis = stack[0] if len(stack) == 1 else None
      if axis is not None and len(shape) > axis:
        texts = [_with_stack(' '.join(last[-(len(shape) - 1) :]), axis)]
    if len(texts) != 1:
      raise ValueError(_ambiguous(path, shape, texts))
    return Layout(texts[0])

  def _kernel_layouts(self, path: str) -> list[str]:
    """Returns every layout that a kernel could have: a single one if it is clear."""
    shape = self._shapes[path]
    layer = _last(tree.module_of(path))
    if _last(path) == 'weight':
      return self._weight_layouts(path)
    alone = self._layer_layouts(path, shape, self._bias(path))
    stack = self._stack_of(tree.module_of(path))
    looks_single = (
      len(shape) == 2
      or (len(shape) == 3 and CONVOLUTION.search(layer))
      or (len(shape) == 3 and stack is UNKNOWN and self._in_attention(path))
      or (len(shape) > 3 and _is_window(shape))
    )
    if None in stack and looks_single:
      return alone
    found = []
    for axis in stack:
      if axis is None:
        found += alone
      elif len(shape) > 2:
        bias = self._bias(path)
        bases = self._layer_layouts(path, _without(shape, axis), bias and _without(bias, axis))
        found += [_with_stack(base, axis) for base in bases]
    return found or ['stack out', 'in out']  # one scale for each channel and layer, or a matrix

  def _layer_layouts(
    self, path: str, shape: tuple[int, ...], bias: tuple[int, ...] | None
  ) -> list[str]:
    """Returns every layout that a single layer could have, whose bias has this shape or is None."""
    rank = len(shape)
    layer = _last(tree.module_of(path))
    sides = self._sides(path, shape, bias)
    if rank == 2:
      return sides
    if rank == 3 and PROJECTIONS.match(layer) and (bias is None or len(bias) == 2):
      return ['in head out']
    if rank == 3 and not PROJECTIONS.match(layer) and self._in_attention(path):
      return ['head in out']
    if bias is not None and len(bias) > 1:
      return [' '.join(['in'] * (rank - len(bias)) + ['out'] * len(bias))]
    convolution = [' '.join(['position'] * (rank - 2) + [side]) for side in sides]
    general = ' '.join(['in'] * (rank - 1) + ['out'])
    if CONVOLUTION.search(layer) or (_is_window(shape) and not DENSE.search(layer)):
      return convolution
    could = [general] if DENSE.search(layer) else [*convolution, general]
    if bias is not None:
      return could
    # Only a bias would tell how many axes are outputs, or whether the first is a stack.
    return [*could, ' '.join(['in'] + ['out'] * (rank - 1)), *['stack in out'][: rank == 3]]

  def _sides(self, path: str, shape: tuple[int, ...], bias: tuple[int, ...] | None) -> list[str]:
    """Returns every order that the last two axes of a dense kernel or a convolution could have.

    A bias has the size of the outputs. If both axes have that size, or there is no bias, Haiku's
    transposed convolutions, whose kernel is `w`, have the outputs first. Matrices not named
    `kernel` have them first if the biases beside two of the same name imply it. Beside Equinox
    layers, whose outputs are first, an array that none of them holds stays ambiguous.
    """
    if implied := _sides_by_bias(shape, bias):
      return [implied]
    layer = _last(tree.module_of(path))
    if len(shape) > 2:
      return ['out in' if _last(path) == 'w' and TRANSPOSED.search(layer) else 'in out']
    counts = self._sides_of_name[_last(path)]
    if _last(path) == 'kernel' or set(counts) == {'in out'}:
      return ['in out']
    if len(counts) == 1 and counts.total() > 1:
      return ['out in']
    return ['in out', 'out in'] if counts or self._beside_equinox else ['in out']

  def _weight_layouts(self, path: str) -> list[str]:
    """Returns every layout of a leaf with PyTorch's name, whose outputs come first or last."""
    shape = self._shapes[path]
    bias = self._bias(path)
    rest = ['position'] * (len(shape) - 2)
    first, last = ' '.join(['out', 'in', *rest]), ' '.join([*rest, 'in', 'out'])
    outputs = math.prod(bias) if bias else 0
    if shape[0] == shape[-1] or outputs not in (shape[0], shape[-1]):
      return [first, last]
    return [first] if outputs == shape[0] else [last]

  # The leaves beside a leaf

  def _bias(self, path: str) -> tuple[int, ...] | None:
    """Returns the shape of the bias beside a kernel; None without one, or beside two kernels."""
    module = tree.module_of(path)
    if self._kernels_in[module] != 1:
      return None
    names = (f'{module}/{name}'.strip('/') for name in ('bias', 'b'))
    return next((self._shapes[name] for name in names if name in self._shapes), None)

  def _in_attention(self, path: str) -> bool:
    """Returns whether a leaf is a projection to heads, or the output projection beside one."""
    layer = _last(tree.module_of(path))
    module = tree.module_of(tree.module_of(path))
    if PROJECTIONS.match(layer):
      return True
    prefix = f'{module}/' if module else ''
    beside = {p[len(prefix) :].partition('/')[0] for p in self._shapes if p.startswith(prefix)}
    return bool(OUTPUT_PROJECTIONS.match(layer)) and any(map(PROJECTIONS.match, beside))

  def _stack_in(self, module: str) -> tuple[int | None, ...]:
    """Returns every axis along which the leaves of a module may be stacked; None means no axis.

    A scan or a vmap over layers adds an axis to every leaf in it. If a bias or a scale has a single
    axis, nothing is stacked; if all have more, an axis that has the same size in all leaves is the
    stack. The nearest module with a bias or a scale decides. For a scan within it whose layers have
    neither, an axis that has the same size in all kernels may be the stack.
    """
    near = {path: self._shapes[path] for path in self._below[module]}
    vectors = {
      path: shape
      for path, shape in near.items()
      if self._kinds[path] in (kinds.OTHER, kinds.SCALE) and shape and not self._is_features(path)
    }
    if any(len(shape) == 1 for shape in vectors.values()):
      return (None,)
    if vectors:
      return tuple(axis for axis in (0, 1) if self._stacks(near, axis)) or UNKNOWN
    outer = self._stack_of(tree.module_of(module)) if module else UNKNOWN
    kernels = [path for path in near if self._kinds[path] == kinds.KERNEL]
    if None not in outer or len(kernels) < 2:
      return outer
    if any(len(near[p]) < 3 and kinds.KERNEL_NAMES.search(_last(p)) for p in kernels):
      return (None,)  # a matrix has no axis to spare
    is_first = self._has_output_projection(kernels) or any(
      CONVOLUTION.search(_last(tree.module_of(path))) for path in kernels
    )
    possible = [axis for axis in ((0,) if is_first else (0, 1)) if near[kernels[0]][axis] > 1]
    return (None, *(axis for axis in possible if self._stacks(near, axis)))

  def _has_output_projection(self, kernels: Sequence[str]) -> bool:
    """Returns whether a kernel takes the heads and features of other projections as its inputs."""
    shapes = [(self._shapes[p], _last(tree.module_of(p))) for p in kernels]
    shapes = [(shape, layer) for shape, layer in shapes if len(shape) == 3]
    made = {shape[1:] for shape, layer in shapes if PROJECTIONS.match(layer)}
    return any(shape[:2] in made for shape, layer in shapes if OUTPUT_PROJECTIONS.match(layer))

  def _is_features(self, path: str) -> bool:
    """Returns whether a bias has two or more of its kernel's last axes: heads and features."""
    bias = self._shapes[path]
    kernels = (f'{tree.module_of(path)}/{name}'.strip('/') for name in ('kernel', 'w'))
    return len(bias) > 1 and any(
      self._shapes[name][-len(bias) :] == bias for name in kernels if name in self._shapes
    )

  def _stacks(self, near: Mapping[str, tuple[int, ...]], axis: int) -> bool:
    """Returns whether all these leaves and their biases could be stacked along an axis."""
    if len({shape[axis : axis + 1] for shape in near.values()}) > 1 or len(near) < 2:
      return False
    for path, shape in near.items():
      if len(shape) <= axis:
        return False
      bias = self._bias(path) if self._kinds[path] == kinds.KERNEL else None
      if bias is not None and _without(shape, axis)[-len(bias) + 1 :] != _without(bias, axis):
        return False
    return True


UNKNOWN: tuple[int | None, ...] = (None, 0)


def _last(path: str) -> str:
  return path.rpartition('/')[2]


def _sides_by_bias(shape: tuple[int, ...], bias: tuple[int, ...] | None) -> str:
  """Returns the order of the last two axes if the bias has the size of one of them, else ''."""
  *_, first, last = shape
  if first == last or bias not in ((first,), (last,)):
    return ''
  return 'in out' if bias == (last,) else 'out in'


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
  return shape[:axis] + shape[axis + 1 :]


def _with_stack(text: str, axis: int) -> str:
  words = text.split()
  return ' '.join([*words[:axis], 'stack', *words[axis:]])


def _is_window(shape: tuple[int, ...]) -> bool:
  window = shape[:-2]
  return len(window) > 1 and len(set(window)) == 1 and window[0] <= LARGEST_WINDOW


def _ambiguous(path: str, shape: tuple[int, ...], texts: Sequence[str]) -> str:
  could = ' or '.join(f"'{text}'" for text in texts)
  return (
    f"the axes of '{path}', shape {shape}, could be {could}: say which, as in "
    f"layouts={{'{path}': '{texts[0]}'}}, or read them off the network with "
    'layouts=sparsejax.layouts_of(function, params, *examples)'
  )
