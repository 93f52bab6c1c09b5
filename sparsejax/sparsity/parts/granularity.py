"""Granularity: the groups of weights that are kept or removed together.

A granularity is three functions of one layer: `pool` sums the weights' values over each group,
`spread` gives every weight its group's value, and `select` finds the groups to keep within a layer.
A layer is passed to them as a matrix (*positions, inputs, outputs), whatever the order of the axes
in its leaf, which `layout` knows. A convolution has the groups of a dense layer with a height and a
width in front. Densities and floors count groups.
"""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.sparsity.parts.belongings import Belongings, Tied, checked_norms, checked_ties
from sparsejax.sparsity.parts.selection import keep_largest


class Granularity(NamedTuple):
  """The groups of a layer, and how to select among them.

  pool: values of weights -> sums over groups.
  spread: (values of groups, shape) -> values of weights.
  select: (scores of groups, count) -> mask of the groups to keep; removed groups score -inf.
  evenly: whether every part of a layer keeps the same number, as in N:M sparsity.
  density: the density that the granularity fixes; None if it fits any.
  view: how a layer is passed to these functions: as a 'matrix', unchanged ('stacked'), or as
  (heads, all else) of each of an attention's projections ('by_head'), whose heads belong together.
  length: the number of inputs in a group of N:M, its m; None for other granularities.
  belongings: the leaves pruned together with a kernel's groups; None if they are pruned alone.
  tied: the outputs of several leaves that are pruned together; None if no layers are tied.
  """

  pool: Callable[[jax.Array], jax.Array]
  spread: Callable[[jax.Array, tuple[int, ...]], jax.Array]
  select: Callable[[jax.Array, jax.Array | int], jax.Array] = keep_largest
  evenly: bool = False
  density: float | None = None
  view: str = 'matrix'
  length: int | None = None
  belongings: Belongings | None = None
  tied: Tied | None = None

  def mean(self, values: jax.Array) -> jax.Array:
    """Returns the mean over each group, by which groups of different sizes are comparable."""
    return self.pool(values) / self.pool(jnp.ones_like(values))

  def groups(self, shape: tuple[int, ...]) -> int:
    """Returns the number of groups in a leaf of this shape."""
    return math.prod(jax.eval_shape(self.pool, jax.ShapeDtypeStruct(shape, jnp.float32)).shape)

  def check_density(self, kept: float, must: str = 'be') -> None:
    """Raises a ValueError for a density other than the one that the granularity fixes, if any."""
    if self.density is not None and not math.isclose(kept, self.density):
      raise ValueError(
        f'density={kept:.6g} must {must} {self.density:.6g}, the n / m of the granularity n_m'
      )


SINGLE = Granularity(
  pool=lambda values: values,
  spread=lambda groups, shape: groups.reshape(shape),
  view='stacked',
)


def _check_whole(name: str, **sizes: Any) -> None:
  for size, value in sizes.items():
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
      raise ValueError(f'{name}: {size}={value!r} must be an integer')


def weight() -> Granularity:
  """Each weight is a group of its own.

  Example:
    >>> weight().pool(jnp.array([3.0, 1.0])).tolist()
    [3.0, 1.0]
  """
  return SINGLE


def filters(*, bias: bool = False, norms: Mapping[str, str] | None = None) -> Granularity:
  """All weights into one output: a filter of a convolution, a unit of a dense layer.

  Args:
    bias: whether the bias of a filter is removed with it.
    norms: {module of a kernel: module of the normalisation after it}, whose scale and shift of the
      filter's channel are removed too, so that nothing of it is left. The key is a regular
      expression that must match the whole path; the value may use its groups, as in
      {'conv(.)': r'norm\\1'}.

  Raises:
    ValueError: at once, if norms is not a mapping of strings; when parameters are given, if a
      module does not exist or has another number of channels.

  Example:
    >>> filters().pool(jnp.array([[3.0, 1.0], [1.0, 0.0]])).tolist()
    [4.0, 1.0]
    >>> from sparsejax import prune_to
    >>> params = {'fc': {'kernel': jnp.array([[3.0, 1.0], [1.0, 0.0]]), 'bias': jnp.ones(2)}}
    >>> prune_to(params, sparsity=0.5, granularity=filters(bias=True))['fc']['bias'].tolist()
    [1.0, 0.0]
  """
  pairs = checked_norms(norms)
  return Granularity(
    pool=lambda values: values.sum(tuple(range(values.ndim - 1))),
    spread=lambda groups, shape: jnp.broadcast_to(groups, shape),
    belongings=Belongings(bias, pairs) if bias or pairs else None,
  )


def input_channels() -> Granularity:
  """All weights from one input, to whichever output; every entry of a vector.

  A depthwise kernel has one input for each group of channels, and so a single group here.

  Example:
    >>> input_channels().pool(jnp.array([[3.0, 1.0], [1.0, 0.0]])).tolist()
    [4.0, 1.0]
  """

  def pool(values):
    axes = (*range(values.ndim - 2), values.ndim - 1) if values.ndim > 1 else ()
    return values.sum(axes)

  def spread(groups, shape):
    return jnp.broadcast_to(groups[:, None] if len(shape) > 1 else groups, shape)

  return Granularity(pool, spread)


def blocks(inputs: int = 4, outputs: int = 4) -> Granularity:
  """Tiles of `inputs` x `outputs` weights at one position of the kernel, smaller at its edges.

  A 3x3 convolution is nine matrices (inputs, outputs), each tiled separately.

  Args:
    inputs: the height of a tile, 1 or more.
    outputs: the width of a tile, 1 or more.

  Raises:
    ValueError: if a size is not an integer, or is below 1.

  Example:
    >>> blocks(1, 2).pool(jnp.array([[3.0, 1.0, 5.0], [1.0, 0.0, 2.0]])).tolist()
    [[4.0, 5.0], [1.0, 2.0]]

  References:
    Gray, Radford and Kingma 2017, https://openai.com/research/block-sparse-gpu-kernels
  """
  _check_whole('blocks', inputs=inputs, outputs=outputs)
  if inputs < 1 or outputs < 1:
    raise ValueError(f'blocks of {inputs}x{outputs}: both must be 1 or more')

  def pool(values):
    matrix = jnp.atleast_2d(values)
    *kernel, rows, columns = matrix.shape
    tall, wide = min(inputs, rows), min(outputs, columns)
    padding = [(0, 0)] * len(kernel) + [(0, -rows % tall), (0, -columns % wide)]
    tiles = jnp.pad(matrix, padding).reshape(
      *kernel, -(-rows // tall), tall, -(-columns // wide), wide
    )
    return tiles.sum((-3, -1))

  def spread(groups, shape):
    *_, rows, columns = (1, 1, *shape)
    tall, wide = min(inputs, rows), min(outputs, columns)
    values = jnp.repeat(jnp.repeat(groups, tall, -2), wide, -1)
    return values[..., :rows, :columns].reshape(shape)

  return Granularity(pool, spread)


def n_m(n: int, m: int) -> Granularity:
  """N:M sparsity: keeps n weights of every m consecutive inputs of an output.

  A schedule must end at the density n / m; before that it thins all groups together.

  Args:
    n: the number of weights kept in each group, from 1 to m.
    m: the length of a group, 2 or more.

  Raises:
    ValueError: if n or m is not an integer, or is outside its range.

  Example:
    >>> scores = jnp.array([[9.0], [8.0], [7.0], [1.0], [3.0], [2.0]])
    >>> n_m(1, 2).select(scores, 3).ravel().tolist()
    [True, False, True, False, True, False]

  References:
    Mishra et al. 2021, https://arxiv.org/abs/2104.08378
  """
  _check_whole('n_m', n=n, m=m)
  if not (m >= 2 and 1 <= n <= m):
    raise ValueError(f'N:M sparsity with n={n}, m={m}: m must be 2 or more, and n from 1 to m')
  return n_of_m(m)._replace(density=n / m)


def n_of_m(m: int = 4) -> Granularity:
  """N:M sparsity whose N follows from the density: with m = 4, a density of 0.5 is 2:4.

  The inputs of a convolution are in the order (height, width, channel), with channels adjacent, as
  its matrix product reads them. If the count is not a multiple of the number of groups, the groups
  whose next weight scores highest keep one more than the others. A group at the end of a column may
  be smaller, and keeps at most as many as the others.

  Args:
    m: the length of a group, 2 or more.

  Raises:
    ValueError: if m is not an integer, or is below 2.

  Example:
    >>> scores = jnp.array([[9.0], [8.0], [7.0], [1.0], [3.0], [2.0]])
    >>> n_of_m(2).select(scores, 3).ravel().tolist()
    [True, False, True, False, True, False]

  References:
    Mishra et al. 2021, https://arxiv.org/abs/2104.08378
  """
  _check_whole('n_of_m', m=m)
  if m < 2:
    raise ValueError(f'N:M sparsity with m={m}: m must be 2 or more')

  def select(scores, count):
    columns = scores.reshape(-1, scores.shape[-1] if scores.ndim > 1 else 1)
    rows = len(columns)
    padded = jnp.pad(columns, ((0, -rows % m), (0, 0)), constant_values=-jnp.inf)
    grouped = padded.reshape(-1, m, columns.shape[1])
    best_first = jnp.argsort(-grouped, axis=1, stable=True)
    place = jnp.argsort(best_first, axis=1).reshape(padded.shape)[:rows].reshape(scores.shape)
    # Each group's best, then each group's second best, and so on; the last rank goes by score.
    alive = scores > -jnp.inf
    up_to = jnp.stack([jnp.sum(alive & (place <= p), dtype=jnp.int32) for p in range(m)])
    last = jnp.sum(up_to < count, dtype=jnp.int32)
    ahead = jnp.where(alive & (place < last), jnp.inf, -jnp.inf)
    return keep_largest(jnp.where(place == last, scores, ahead), count)

  return Granularity(SINGLE.pool, SINGLE.spread, select, evenly=True, length=m)


def in_multiples(number: int = 8, granularity: Granularity | None = None) -> Granularity:
  """Keeps a multiple of `number` groups in each layer, as matrix units prefer.

  The number of groups kept is rounded down, so that the density is never exceeded, but to at least
  one multiple. A layer is unchanged if it keeps everything or has at most that many groups.

  Args:
    number: the divisor of the number of groups that a layer keeps, 1 or more.
    granularity: the groups; `filters()` by default.

  Raises:
    ValueError: if the number is not an integer or is below 1, or the granularity is N:M.

  Example:
    >>> scores = jnp.array([5.0, 3.0, 4.0, 1.0, 2.0, 0.0])
    >>> in_multiples(2).select(scores, 3).tolist()
    [True, False, True, False, False, False]

  References:
    https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication/
  """
  granularity = filters() if granularity is None else granularity
  _check_whole('in_multiples', number=number)
  if number < 1:
    raise ValueError(f'in_multiples: number={number} must be 1 or more')
  if granularity.evenly:
    raise ValueError('in_multiples: granularity n_m must have whole groups, as filters() does')

  def select(scores, count):
    least = jnp.where(count > 0, min(number, scores.size), 0)
    rounded = jnp.maximum(count // number * number, least)
    return granularity.select(scores, jnp.where(count >= scores.size, count, rounded))

  return granularity._replace(select=select)


def heads() -> Granularity:
  """Whole heads of an attention layer, over its query, key, value and output projections together.

  Only kernels whose layout names heads are pruned: an attention layer is one module, and all of
  its projections must name them. If keys and values have fewer heads than queries, a group is one
  of those heads with all its query heads, which are adjacent as `jnp.repeat` makes them.

  Example:
    >>> heads().pool(jnp.array([[3.0, 1.0], [1.0, 0.0]])).tolist()  # two heads
    [4.0, 1.0]

  References:
    Michel, Levy and Neubig 2019, https://arxiv.org/abs/1905.10650
  """
  return Granularity(
    pool=lambda values: values.sum(-1),
    spread=lambda groups, shape: jnp.broadcast_to(groups[:, None], shape),
    view='by_head',
  )


def tied(ties: Iterable[Any]) -> Granularity:
  r"""Units that can only be removed as a whole, such as the channels of a residual stream.

  A unit consists of all that computes it, in any layer: filters, biases, the scale and shift of a
  normalisation. A removed unit is zero in all of them, so that `sparsejax.compact.shrink` removes
  it from every layer. A unit's score is the mean of the squares of its entries' scores,

  .. math:: s_u = \frac{1}{|u|} \sum_{i \in u} p_i^2

  with the criterion `magnitude`; in the group lasso a unit has one norm, over all its entries.
  Kernels without ties, such as a classifier's, are not pruned.

  Args:
    ties: the `ties` of `sparsejax.compact.plan` for a function of the parameters to prune, or some
      of them.

  Raises:
    ValueError: when called, if there is no tie or something is not a tie; at `init`, if a tie names
      no parameter, or the choice of parameters splits a unit.

  Example:
    >>> from sparsejax import compact, prune_to
    >>> params = {
    ...   'a': {'kernel': jnp.array([[3.0, 1.0]]), 'bias': jnp.array([1.0, 2.0])},
    ...   'b': {'kernel': jnp.ones((2, 3))},
    ... }
    >>> network = lambda p, x: jnp.tanh(x @ p['a']['kernel'] + p['a']['bias']) @ p['b']['kernel']
    >>> plan = compact.plan(network, params, jnp.ones(1))
    >>> pruned = prune_to(params, sparsity={'a': 0.5}, granularity=tied(plan.ties))
    >>> pruned['a']['kernel'].tolist(), pruned['a']['bias'].tolist()  # means of squares: 5 and 2.5
    ([[3.0, 0.0]], [1.0, 0.0])

  References:
    Fang et al. 2023 (DepGraph), https://arxiv.org/abs/2301.12900
  """
  return filters()._replace(tied=checked_ties(ties))
