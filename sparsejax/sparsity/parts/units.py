"""Units of leaves ranked together: one leaf, a kernel with its biases, an attention's heads."""

import collections
import functools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.lookup import nearest
from sparsejax.sparsity.counting.costs import Layer
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.parts.belongings import Tied, belongings
from sparsejax.sparsity.parts.criteria import Criterion
from sparsejax.sparsity.parts.granularity import Granularity

LARGEST = 2**31 - 1


class Leaf(NamedTuple):
  """A leaf that is pruned: its path, its shape and its layout."""

  path: str
  shape: tuple[int, ...]
  layout: Layout

  @property
  def layers(self) -> int:
    return self.layout.layers(self.shape)

  @property
  def outputs(self) -> tuple[int, ...]:
    """The number of outputs, after the number of layers if there are several."""
    layers, *_, outputs = self.layout.matrix_shape(self.shape)
    return (layers, outputs) if layers > 1 else (outputs,)


class Unit(NamedTuple):
  """Leaves that are ranked together: one, except for heads, ties, and filters with their biases.

  Attributes:
    paths: the leaves' paths.
    shape: the shape of a leaf whose single weights are ranked.
    groups: the groups of their weights; None if each weight of a single layer is its own group.
  """

  paths: tuple[str, ...]
  shape: tuple[int, ...] = ()
  groups: 'Groups | None' = None


class Groups(NamedTuple):
  """The groups of leaves that are ranked together.

  Attributes:
    leaves: the leaves, which all stack the same number of layers.
    granularity: the granularity, which defines the groups.
    heads: the number of groups in a layer, if they are heads.
    numbers: for each leaf, if groups are tied over several leaves, the group of each output, or -1
      for outputs of no group, which are kept.
  """

  leaves: tuple[Leaf, ...]
  granularity: Granularity
  heads: int | None = None
  numbers: tuple[np.ndarray, ...] = ()

  def score(self, i: int, criterion: Criterion, param: jax.Array, given: Any) -> jax.Array:
    """Returns the scores of a leaf, with each of its stacked layers scored separately.

    Args:
      i: the index of the leaf.
      criterion: takes one layer and `given`.
      param: the leaf's values.
      given: the criterion's other arguments: the path, a random key, arrays of the leaf's shape.
    """
    leaf = self.leaves[i]
    if leaf.layers == 1:
      return criterion(param, **given)
    if 'path' in given:
      criterion = functools.partial(criterion, path=given.pop('path'))
    stacked = {name: leaf.layout.view(v, 'stacked') for name, v in given.items() if name != 'key'}
    if 'key' in given:
      stacked['key'] = jax.random.split(given['key'], leaf.layers)
    of_layers = jax.vmap(lambda param, given: criterion(param, **given))
    scores = of_layers(leaf.layout.view(param, 'stacked'), stacked)
    return leaf.layout.restore(scores, 'stacked', leaf.shape)

  def view(self, leaf: Leaf, values: jax.Array) -> jax.Array:
    """Returns the view of a leaf that the granularity works on, with the layers first."""
    view = leaf.layout.view(values, self.granularity.view)
    return view if self.heads is None else view.reshape(len(view), self.heads, -1)

  def pool(self, values: list[jax.Array]) -> jax.Array:
    """Returns the sum over each group, of shape (layers, *groups), of all leaves' values."""
    pools = [
      jax.vmap(self.granularity.pool)(self.view(leaf, v))
      for leaf, v in zip(self.leaves, values, strict=True)
    ]
    if self.numbers:
      pools = [self._together(*pair) for pair in zip(pools, self.numbers, strict=True)]
    return functools.reduce(jnp.add, pools)

  def _together(self, outputs: jax.Array, numbers: np.ndarray) -> jax.Array:
    """Returns the sums over the outputs of each tied group, and over all stacked layers."""
    count = self.tied_groups
    groups = np.where(numbers < 0, count, numbers)
    return jax.ops.segment_sum(outputs.sum(0), groups, count + 1)[None, :count]

  @property
  def tied_groups(self) -> int:
    """The number of tied groups."""
    return 1 + max(int(numbers.max()) for numbers in self.numbers)

  def mean(self, values: list[jax.Array]) -> jax.Array:
    """Returns the mean over each group, by which groups of different sizes are comparable."""
    values = [v.astype(jnp.float32) for v in values]
    if self.single:
      return self.pool(values)
    values = [jnp.square(v) for v in values] if self.numbers else values
    return self.pool(values) / self.pool([jnp.ones_like(v) for v in values])

  def spread(self, groups: jax.Array) -> list[jax.Array]:
    """Returns, for each leaf, the value of every weight's group."""
    if not self.numbers:
      return [self._spread(leaf, groups) for leaf in self.leaves]
    kept = jnp.ones((1,), groups.dtype)
    of_all = jnp.concatenate([groups[0], kept])  # its last entry is for outputs of no group
    found = []
    for leaf, numbers in zip(self.leaves, self.numbers, strict=True):
      found.append(self._spread(leaf, jnp.stack([of_all[numbers]] * leaf.layers)))
    return found

  def _spread(self, leaf: Leaf, groups: jax.Array) -> jax.Array:
    like = jax.eval_shape(
      lambda v: self.view(leaf, v), jax.ShapeDtypeStruct(leaf.shape, groups.dtype)
    )
    spread = jax.vmap(lambda group: self.granularity.spread(group, like.shape[1:]))
    return self.restore(leaf, spread(groups))

  def restore(self, leaf: Leaf, view: jax.Array) -> jax.Array:
    """Returns a leaf from its view."""
    return leaf.layout.restore(view, self.granularity.view, leaf.shape)

  @property
  def single(self) -> bool:
    """Whether each group is a single weight, in its place in the leaf."""
    return self.granularity.view == 'stacked'

  @property
  def sizes(self) -> int | np.ndarray:
    """The number of weights in each group: one number if it is the same for all."""
    if self.single:
      return 1
    with jax.ensure_compile_time_eval():
      one = [jnp.ones(leaf.shape, jnp.float32) for leaf in self.leaves]
      sizes = np.asarray(self.pool(one))[0]
    return int(sizes.flat[0]) if sizes.size and (sizes == sizes.flat[0]).all() else sizes

  def layers(self, *, with_sizes: bool) -> list[Layer]:
    """Returns a description of each layer, for an allocation to plan by.

    Args:
      with_sizes: whether the plan depends on the sizes of groups.
    """
    first = self.leaves[0]
    shape = first.layout.matrix_shape(first.shape)[1:]
    counted: tuple[tuple[int, int], ...] = ()
    sizes = self.sizes if with_sizes else 1
    if not np.isscalar(sizes):
      number = collections.Counter(int(size) for size in np.ravel(sizes))
      counted = tuple(sorted(number.items(), reverse=True))
    weights = tuple((leaf.path, math.prod(leaf.shape) // leaf.layers) for leaf in self.leaves)
    leaves = weights if len(weights) > 1 else ()
    layers = 1 if self.numbers else first.layers
    return [Layer(first.path, shape, self._groups(), counted, leaves)] * layers

  def _groups(self) -> int:
    shapes = [jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for leaf in self.leaves]
    pooled = jax.eval_shape(self.pool, shapes)
    groups = math.prod(pooled.shape[1:])
    if groups > LARGEST:
      raise ValueError(
        f"'{self.leaves[0].path}' has {groups:,} groups in a layer, and must have {LARGEST:,} at "
        'most: choose larger groups, or leave it out with exclude='
      )
    return groups


def units(params: Any, chosen: Any, granularity: Granularity, layouts: axes.Given) -> list[Unit]:
  """Returns the units of the chosen leaves, in the order of the tree.

  Raises:
    ValueError: if the axes of a leaf are ambiguous, or there are no heads to prune.
  """
  named = tree.named_leaves(params)
  paths = [path for path, c in tree.named_leaves(chosen).items() if c]
  if granularity.tied is not None:
    return _tied_units(params, paths, granularity, granularity.tied, layouts)
  others = _belongings(params, paths, granularity)
  owned = {path for found in others.values() for path in found}
  found = axes.layouts(params, dict.fromkeys([*paths, *sorted(owned)]), layouts)

  def leaf(path):
    return Leaf(path, jnp.shape(named[path]), found[path])

  leaves = [leaf(path) for path in paths if path not in owned]
  if others:
    owners = [(first, *map(leaf, others.get(first.path, ()))) for first in leaves]
    groups = [Groups(_checked(owner), granularity) for owner in owners]
  elif granularity.view != 'by_head':
    groups = [Groups((leaf,), granularity) for leaf in leaves]
  else:
    groups = _attentions(leaves, granularity)
  return [Unit(tuple(leaf.path for leaf in some.leaves), groups=some) for some in groups]


def _tied_units(
  params: Any, chosen: Sequence[str], granularity: Granularity, tied: Tied, layouts: axes.Given
) -> list[Unit]:
  """Returns the units of tied leaves, if the kernels among them are chosen.

  Args:
    params: the parameters.
    chosen: the paths of the chosen leaves.
    granularity: the granularity that has these ties.
    tied: the ties.
    layouts: the layouts that the user gave.
  """
  named = tree.named_leaves(params)
  if unknown := [path for path in tied.units if path not in named]:
    known = nearest(unknown[0], named) or f' there are {", ".join(named)}'
    raise ValueError(
      f"granularity tied: '{unknown[0]}' must be the path of a parameter; plan the ties with the "
      f'parameters that are pruned:{known}'
    )
  found = axes.layouts(params, [path for path in named if path in tied.units], layouts)
  leaves = [Leaf(path, jnp.shape(named[path]), layout) for path, layout in found.items()]
  read = ((leaf.path, tied.of_outputs(leaf.path, leaf.shape, leaf.layout)) for leaf in leaves)
  numbers = {path: own for path, own in read if own is not None}
  units = []
  kernels = tree.kernels(params)
  for group in _connected(numbers):
    filters = [path for path in group if path in kernels]
    left_out = [path for path in filters if path not in chosen]
    if left_out and left_out != filters:
      raise ValueError(
        f"granularity tied: '{left_out[0]}' is not chosen, but is tied to "
        f"'{next(path for path in filters if path in chosen)}': choose both or neither"
      )
    if filters and not left_out:
      order = sorted(group, key=lambda path: path not in filters)  # the first describes the layer
      of_group = [numbers[path] for path in order]
      there = sorted({int(n) for own in of_group for n in own if n >= 0})
      renumbered = [np.where(n < 0, -1, np.searchsorted(there, n)) for n in of_group]
      some = tuple(leaf for path in order for leaf in leaves if leaf.path == path)
      units.append(Unit(tuple(order), groups=Groups(some, granularity, None, tuple(renumbered))))
  return units


def _connected(numbers: dict[str, np.ndarray]) -> list[list[str]]:
  """Returns groups of paths that are connected by common numbers."""
  groups: list[tuple[list[str], set[int]]] = []
  for path, own in numbers.items():
    units = set(own[own >= 0].tolist())
    apart = [group for group in groups if not group[1] & units]
    joined = [group for group in groups if group[1] & units]
    paths = [p for group in joined for p in group[0]]
    groups = [*apart, ([*paths, path], units.union(*(group[1] for group in joined)))]
  return [paths for paths, _ in groups]


def _belongings(params, paths, granularity) -> dict[str, list[str]]:
  """Returns {path of a kernel: the paths of the leaves pruned with its filters}."""
  if granularity.belongings is None:
    return {}
  kernels = tree.kernels(params)
  chosen = [path for path in paths if path in kernels]
  return belongings(chosen, tree.paths(params), granularity.belongings)


def _checked(group: tuple[Leaf, ...]) -> tuple[Leaf, ...]:
  """Returns the leaves, or raises if one has other outputs or stacked layers than the kernel."""
  kernel, *others = group
  for leaf in others:
    if leaf.outputs != kernel.outputs:
      of_leaf, of_kernel = (' x '.join(map(str, one.outputs)) for one in (leaf, kernel))
      raise ValueError(
        f"granularity filters: '{leaf.path}' has {of_leaf} channels and must have {of_kernel}, the "
        f"number of filters of '{kernel.path}'"
      )
  return group


# The names of arrays that are in a module of their own.
ARRAY_NAMES = re.compile(r'^(kernel|w|weight)$')
PROJECTION = re.compile(
  rf'^(w[qkvo]|qkv(_proj)?|c_attn)$|{axes.PROJECTIONS.pattern}|{axes.OUTPUT_PROJECTIONS.pattern}'
)
QUERY = re.compile(r'(^|_)(w?q|query)(_|$)')


def _attentions(leaves, granularity) -> list[Groups]:
  """Returns the groups of each attention: its heads, over all of its projections."""
  modules = collections.defaultdict(list)
  without = collections.defaultdict(list)
  for leaf in leaves:
    module, layer = _attention_of(leaf.path)
    if leaf.layout.heads(leaf.shape) is not None:
      modules[module].append(leaf)
    elif PROJECTION.search(layer):
      without[module].append(leaf.path)
  if leaves and not modules:
    raise ValueError(
      f'granularity heads: no layout of {", ".join(leaf.path for leaf in leaves)} names heads; '
      f'{HOW_TO_NAME_HEADS}'
    )
  for module, found in modules.items():
    _check_whole(module, found, without[module])
  return [_attention(module, found, granularity) for module, found in modules.items()]


HOW_TO_NAME_HEADS = (
  "say where they are, as in layouts={'query': 'in head out'} or Layout('(head out) in', head=4), "
  'or read them off the network with layouts_of'
)


def _attention_of(path: str) -> tuple[str, str]:
  """Returns the attention module of a projection, and the name of the projection in it."""
  module, name = tree.module_of(path), path.rpartition('/')[2]
  if ARRAY_NAMES.match(name):
    return tree.module_of(module), module.rpartition('/')[2]
  return module, name


def _check_whole(module: str, leaves: Sequence[Leaf], without: Sequence[str]) -> None:
  """Raises a ValueError if these are not the projections of exactly one attention."""
  paths = ', '.join(leaf.path for leaf in leaves)
  if without:
    raise ValueError(
      f"granularity heads: in the attention '{module}' {paths} name heads, and "
      f'{", ".join(without)} must too, since whole heads are removed: {HOW_TO_NAME_HEADS}'
    )
  sides = {f.side for leaf in leaves for f in leaf.layout.factors if f.role == 'head'}
  if sides == {'in'}:
    raise ValueError(
      f"granularity heads: '{module}' has only the output projection {paths}, and must have the "
      'projections to heads too: an attention layer is one module'
    )
  queries = [leaf.path for leaf in leaves if QUERY.search(_attention_of(leaf.path)[1])]
  if len(queries) > 1:
    raise ValueError(
      f"granularity heads: '{module}' has the queries {', '.join(queries)} and must have one: "
      'give each attention a module of its own'
    )


def _attention(module, leaves, granularity) -> Groups:
  heads = {leaf.path: leaf.layout.heads(leaf.shape) for leaf in leaves}
  fewest = min(heads.values())
  if any(n % fewest for n in heads.values()) or len({leaf.layers for leaf in leaves}) > 1:
    raise ValueError(
      f"granularity heads: the projections of '{module}' must have the same number of heads, or "
      f'multiples of the fewest, and stack the same number of layers: {heads}'
    )
  return Groups(tuple(leaves), granularity, fewest)
