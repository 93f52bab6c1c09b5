"""A product with a fixed kernel, its bias and its ReLU, and the implementations that compute it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from sparsejax.cpu_conv.convolution import convolve
from sparsejax.cpu_sparse import kernel
from sparsejax.cpu_sparse.feature_major import Order, Product
from sparsejax.sparsity.program.equations import Equation

KERNEL, BCSR, DENSE = IMPLEMENTATIONS = 'kernel', 'bcsr', 'dense'
NHWC_HWIO_NHWC = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)  # the layout of cpu_conv's convolutions


class Value:
  """An array of the traced program, stored with its axes in any order.

  Sparse products read and write feature-major arrays, whose batch axis is last. Values stay in that
  layout from one product to the next, so that no layer transposes its input.

  Attributes:
    array: the array as it is stored.
    order: the axis of the program's array that each axis of `array` is; the identity by default.
  """

  def __init__(self, array: jax.Array, order: Order | None = None):
    self.array = array
    self.order = order or tuple(range(jnp.ndim(array)))

  def transposed_to(self, order: Order) -> jax.Array:
    """Returns the array with its axes in the given order."""
    if order == self.order:
      return self.array
    return jnp.transpose(self.array, [self.order.index(axis) for axis in order])

  @property
  def in_program_order(self) -> jax.Array:
    """The array with its axes in the program's order."""
    return self.transposed_to(tuple(range(jnp.ndim(self.array))))

  @property
  def is_permuted(self) -> bool:
    """Whether the stored axes are in another order than the program's."""
    return self.order != tuple(range(jnp.ndim(self.array)))


@dataclasses.dataclass(eq=False)
class Layer:
  """A product with a fixed kernel, followed by a bias and an optional ReLU.

  Attributes:
    name: the path of the kernel's parameter, or the name of the equation.
    eqn: the product in the program.
    product: the layout of its operands.
    weights: the kernel (outputs, channels, height, width), multiplied by the scales that follow it.
    bias: one number for each output.
    relu: whether a ReLU follows.
    data: the number of the program's value that goes in.
    out: the number of the program's value that comes out.
  """

  name: str
  eqn: Equation
  product: Product
  weights: np.ndarray
  bias: np.ndarray
  relu: bool
  data: int
  out: int

  @property
  def sparsity(self) -> float:
    """The share of zero weights."""
    return 1.0 - float(np.count_nonzero(self.weights)) / self.weights.size

  @functools.cached_property
  def nonzeros(self) -> kernel.Nonzeros:
    """The nonzero weights, in compressed rows."""
    return kernel.nonzeros_of(self.weights)

  @property
  def implementations(self) -> tuple[str, ...]:
    """The implementations that can compute this layer; BCSR needs a matrix product."""
    return IMPLEMENTATIONS if self.product.is_matrix else (KERNEL, DENSE)

  def __call__(self, x: Value, implementation: str) -> Value:
    """Returns the product with bias and ReLU, computed by one of the implementations."""
    if implementation == DENSE:
      return self._by_dense(x)
    product = self.product
    *_, batch = product.image
    is_batch_first = x.order == product.batch_first_order
    if implementation == KERNEL and product.has_one_pixel and batch > 1 and is_batch_first:
      return self._from_features(self._by_kernel(x.array.reshape(batch, -1)))  # transposes tiles
    image = x.transposed_to(product.data_order).reshape(product.image)
    by_sparse = self._by_kernel if implementation == KERNEL else self._by_bcsr
    return self._from_features(by_sparse(image))

  def _from_features(self, y: jax.Array) -> Value:
    """Returns a feature-major result as a value with the axes of the program's array."""
    shape = [self.eqn.out_shapes[0][axis] for axis in self.product.out_order]
    return Value(y.reshape(shape), self.product.out_order)

  def _by_kernel(self, x: jax.Array) -> jax.Array:
    """Returns (outputs, height, width, batch) from a feature-major image or (batch, channels)."""
    return kernel.convolve(x, self.nonzeros, self.bias, self.product.window, self.relu)

  def _by_bcsr(self, image: jax.Array) -> jax.Array:
    """Returns (outputs, positions) from a feature-major image, by JAX's own sparse product."""
    outputs, channels = self.weights.shape[:2]
    values, starts = jnp.asarray(self.nonzeros.values), jnp.asarray(self.nonzeros.row_starts)
    columns = jnp.asarray(self.nonzeros.coordinates[0], jnp.int32)
    matrix = sparse.BCSR((values, columns, starts), shape=(outputs, channels))
    return self._add_bias_and_relu(matrix @ image.reshape(channels, -1), (outputs, 1))

  def _add_bias_and_relu(self, y: jax.Array, bias_shape: Order) -> jax.Array:
    """Adds the bias, reshaped to broadcast against `y`, and applies the ReLU if there is one."""
    y = y + jnp.asarray(self.bias).reshape(bias_shape)
    return jnp.maximum(y, 0.0) if self.relu else y

  def _by_dense(self, x: Value) -> Value:
    """Returns the product computed with all weights, the zeros too.

    A permuted input of a matrix product over single pixels is multiplied where it is, feature-major
    (channels, batch). Any other input is brought into the program's order, and the product is
    computed as in the program.
    """
    product = self.product
    if x.is_permuted and product.has_one_pixel:
      outputs, channels = self.weights.shape[:2]
      features = x.transposed_to(product.data_order).reshape(channels, -1)
      y = jnp.asarray(self.weights.reshape(outputs, channels)) @ features
      return self._from_features(self._add_bias_and_relu(y, (outputs, 1)))
    feature_axes = product.out_order[: product.out_features]
    out_shape = self.eqn.out_shapes[0]
    bias_shape = tuple(n if axis in feature_axes else 1 for axis, n in enumerate(out_shape))
    y = self._original_product(x.in_program_order)
    return Value(self._add_bias_and_relu(y, bias_shape))

  def _original_product(self, x: jax.Array) -> jax.Array:
    """Returns the program's own product, without bias, of an input in the program's order.

    Convolutions of images (batch, height, width, channels) use the formulations of `cpu_conv`.
    """
    product = self.product
    kernel_shape = self.eqn.in_shapes[1 - product.data]
    weights = self.weights.reshape([kernel_shape[axis] for axis in product.kernel_order])
    weights = jnp.asarray(weights.transpose(np.argsort(product.kernel_order)))
    if self._has_cpu_convolution():
      stride_rows, stride_columns = product.window.strides
      pad_rows, pad_columns = product.window.padding
      return convolve(x, weights, (stride_rows, stride_columns), (pad_rows, pad_columns))
    [y] = self.eqn.bind([x, weights] if product.data == 0 else [weights, x])
    return y

  def _has_cpu_convolution(self) -> bool:
    """Whether this is a convolution without dilation, in the only layout that `cpu_conv` has."""
    if self.eqn.name != 'conv_general_dilated':
      return False
    layout = tuple(self.eqn.params['dimension_numbers'])
    return layout == NHWC_HWIO_NHWC and self.product.window.dilation == (1, 1)
