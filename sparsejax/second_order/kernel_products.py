"""The products of a traced program that multiply activations by a kernel, whatever library made it.

A kernel is followed from its leaf through reshapes, transpositions, slices and casts. Instead of
its weights, their places in the leaf are passed through these equations, and come out as the places
of the matrix that is multiplied. So no layout is needed, and one rule serves dense layers,
convolutions, attention, and kernels of which each layer takes a slice.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.sparsity.program.equations import Equation, Trace

MOVES = frozenset(
  ['broadcast_in_dim', 'expand_dims', 'reshape', 'rev', 'slice', 'squeeze', 'transpose']
)
KEEPS = frozenset(
  [
    *('convert_element_type', 'copy', 'copy_p', 'device_put', 'optimization_barrier'),
    *('reduce_precision', 'reshard', 'sharding_constraint', 'stop_gradient'),
  ]
)


@dataclasses.dataclass(frozen=True)
class Product:
  """A product of an activation and a kernel.

  Attributes:
    path: the path of the kernel's leaf.
    at: the index of the equation.
    activation: the number of the value that the kernel multiplies.
    places: int32, (stack, groups, outputs, inputs), the place in the flat leaf of each weight.
    rows: a function of the activation that returns its rows, (stack * groups, rows, inputs). Equal
      products have equal ones, which JAX compiles once.
  """

  path: str
  at: int
  activation: int
  places: np.ndarray
  rows: Callable[[jax.Array], jax.Array]


def live_equations(trace: Trace) -> list[Equation]:
  """Returns the equations whose results the program's outputs need, in order."""
  needed = set(trace.program.outs)
  found = []
  for eqn in reversed(trace.program.equations):
    if needed & set(eqn.outs):
      needed |= set(eqn.ins)
      found.append(eqn)
  return found[::-1]


def dependent_values(trace: Trace, equations: Sequence[Equation], parameters: int) -> set[int]:
  """Returns the numbers of the values that depend on the inputs after the first `parameters`."""
  dependent = set(trace.program.ins[parameters:])
  for eqn in equations:
    if dependent & set(eqn.ins):
      dependent |= set(eqn.outs)
  return dependent


def find_products(
  equations: Sequence[Equation],
  kernels: Mapping[int, tuple[str, tuple[int, ...]]],
  dependent: Collection[int],
) -> list[Product]:
  """Returns every product of an activation and a kernel, in the order of the program.

  Args:
    equations: the program's equations.
    kernels: {number of a leaf's value: (its path, its shape)}.
    dependent: the numbers of the values that depend on the examples.

  Raises:
    ValueError: if a kernel is used otherwise, or not at all.
  """
  views = {
    number: (path, jnp.arange(math.prod(shape), dtype=jnp.int32).reshape(shape))
    for number, (path, shape) in kernels.items()
  }
  found = []
  for at, eqn in enumerate(equations):
    used = [number for number in eqn.ins if number in views]
    if not used:
      continue
    product = _product(at, eqn, views, dependent) if len(used) == 1 else None
    if product is not None:
      found.append(product)
    elif not _follow(eqn, views):
      path = views[used[0]][0]
      raise ValueError(
        f"'{path}' must be used in products with activations alone, and goes into '{eqn.name}': "
        'exclude it, or give a function of the network without its loss, and without loops over '
        'layers'
      )
  unused = {path for path, _ in kernels.values()} - {product.path for product in found}
  if unused:
    raise ValueError(f"'{min(unused)}' multiplies no activation: exclude it")
  return found


def _follow(eqn: Equation, views: dict[int, tuple[str, jax.Array]]) -> bool:
  """Adds the views that an equation makes of others; returns False if it makes something else."""
  if eqn.name in KEEPS and len(eqn.ins) == len(eqn.outs):
    views |= {out: views[n] for n, out in zip(eqn.ins, eqn.outs, strict=True) if n in views}
    return True
  if eqn.name not in MOVES or len(eqn.ins) != 1:
    return False
  path, places = views[eqn.ins[0]]
  [moved] = eqn.bind([places])
  if moved.size > places.size:  # a broadcast repeats weights
    return False
  views[eqn.outs[0]] = path, moved
  return True


def _product(at, eqn, views, dependent) -> Product | None:
  """Returns the product that an equation is, or None if it is another equation."""
  read = READERS.get(eqn.name)
  if read is None or len(eqn.ins) != 2:
    return None
  side = next(i for i, number in enumerate(eqn.ins) if number in views)
  activation = eqn.ins[1 - side]
  if activation not in dependent:
    return None
  path, places = views[eqn.ins[side]]
  parts = read(eqn, side, places)
  if parts is None:
    return None
  matrices, rows = parts
  return Product(path, at, activation, np.asarray(matrices), rows)


def _dot_general(eqn: Equation, side: int, places: jax.Array):
  """Reads a matrix product: batch dimensions are a stack, and columns have the kernel's order."""
  contracted, batch = eqn.params['dimension_numbers']
  pairs = sorted(zip(contracted[side], contracted[1 - side], strict=True))
  own, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
  matrices = _as_matrix(places, batch[side], own)
  return matrices[:, None], _RowsOfMatrix(tuple(batch[1 - side]), tuple(others))


@dataclasses.dataclass(frozen=True)
class _RowsOfMatrix:
  """The rows of an activation in a matrix product."""

  batch: tuple[int, ...]
  columns: tuple[int, ...]

  def __call__(self, activation: jax.Array) -> jax.Array:
    return _as_matrix(activation, self.batch, self.columns)


def _as_matrix(values: jax.Array, batch: Sequence[int], columns: Sequence[int]) -> jax.Array:
  """Returns values as (batch, all other axes, columns)."""
  others = [axis for axis in range(values.ndim) if axis not in (*batch, *columns)]
  shape = [math.prod(values.shape[i] for i in axes) for axes in (batch, others, columns)]
  return values.transpose([*batch, *others, *columns]).reshape(shape)


def _convolution(eqn: Equation, side: int, places: jax.Array):
  """Reads a convolution as im2col: columns are (*positions in the window, channel)."""
  p = eqn.params
  if side != 1 or p['batch_group_count'] != 1:
    return None
  numbers, groups = p['dimension_numbers'], p['feature_group_count']
  out_axis, in_axis, *window = numbers.rhs_spec
  outputs = places.shape[out_axis]
  moved = places.transpose([out_axis, *window, in_axis])
  matrices = moved.reshape(1, groups, outputs // groups, -1)
  rows = _Patches(
    numbers.lhs_spec,
    tuple(places.shape[axis] for axis in window),
    groups,
    *(tuple(p[name]) for name in ('window_strides', 'padding', 'lhs_dilation', 'rhs_dilation')),
  )
  return matrices, rows


@dataclasses.dataclass(frozen=True)
class _Patches:
  """The rows of an image in a convolution: what its window covers at each position."""

  axes: tuple[int, ...]  # of examples, of channels, and then of positions
  window: tuple[int, ...]
  groups: int
  strides: tuple[int, ...]
  padding: tuple[tuple[int, int], ...]
  image_dilation: tuple[int, ...]
  kernel_dilation: tuple[int, ...]

  def __call__(self, activation: jax.Array) -> jax.Array:
    image = activation.transpose(self.axes)
    patches = jax.lax.conv_general_dilated_patches(
      image,
      self.window,
      self.strides,
      self.padding,
      self.image_dilation,
      self.kernel_dilation,
      precision=jax.lax.Precision.HIGHEST,
    )
    # They are (examples, channel and then position in the window, *positions).
    channels, taps = image.shape[1] // self.groups, math.prod(self.window)
    split = patches.reshape(len(image), self.groups, channels, taps, -1)
    return split.transpose(1, 0, 4, 3, 2).reshape(self.groups, -1, taps * channels)


READERS: dict[str, Callable[..., Any]] = {
  'dot_general': _dot_general,
  'conv_general_dilated': _convolution,
}
