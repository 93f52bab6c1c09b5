"""A product with a fixed kernel, its bias and its ReLU, and the ways in which it is computed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from sparsejax.compact.trace.equations import Equation
from sparsejax.cpu_conv.convolution import convolve
from sparsejax.cpu_sparse import kernel
from sparsejax.cpu_sparse.products import Order, Product

KERNEL, BCSR, DENSE = WAYS = 'kernel', 'bcsr', 'dense'
IMAGES = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)  # NHWC, HWIO, NHWC


class Value:
  """An array whose axes may lie in another order than the program has them.

  Attributes:
    array: the numbers as they lie.
    order: which of the program's axes is the first of the array, the second, and so on.
  """

  def __init__(self, array: jax.Array, order: Order | None = None):
    self.array, self.order = array, order or tuple(range(jnp.ndim(array)))

  def lying(self, order: Order) -> jax.Array:
    """Returns the array with its axes in an order."""
    if order == self.order:
      return self.array
    return jnp.transpose(self.array, [self.order.index(axis) for axis in order])

  @property
  def plain(self) -> jax.Array:
    """The array as the program has it."""
    return self.lying(tuple(range(jnp.ndim(self.array))))

  @property
  def is_moved(self) -> bool:
    return self.order != tuple(range(jnp.ndim(self.array)))


@dataclasses.dataclass(eq=False)
class Layer:
  """A product with a fixed kernel.

  Attributes:
    name: the path of the kernel's parameter, or the equation.
    eqn: the product in the program.
    product: how its operands lie.
    matrix: the kernel (outputs, channels, height, width), with the scale after it.
    bias: of each output.
    relu: whether what is negative becomes zero.
    data: the number of the value that goes in.
    out: the number of the value that comes out.
  """

  name: str
  eqn: Equation
  product: Product
  matrix: np.ndarray
  bias: np.ndarray
  relu: bool
  data: int
  out: int

  @property
  def sparsity(self) -> float:
    return 1.0 - float(np.count_nonzero(self.matrix)) / self.matrix.size

  @functools.cached_property
  def rows(self) -> kernel.Rows:
    return kernel.rows_of(self.matrix)

  @property
  def ways(self) -> tuple[str, ...]:
    """In which ways it can be computed, where there is a compiler."""
    return WAYS if self.product.is_matrix else (KERNEL, DENSE)

  def __call__(self, x: Value, way: str) -> Value:
    """Returns the product with bias and ReLU, computed in one of the ways."""
    if way == DENSE:
      return self._dense(x)
    p = self.product
    if way == KERNEL and p.is_matrix and p.image[3] > 1 and x.order == p.turned_order:
      channels, *_, batch = p.image  # which the kernel turns round by itself
      return self._out(self._by_kernel(x.array.reshape(batch, channels)))
    image = x.lying(p.data_order).reshape(p.image)
    y = self._by_kernel(image) if way == KERNEL else self._by_bcsr(image)
    return self._out(y)

  def _out(self, y):
    shape = [self.eqn.out_shapes[0][axis] for axis in self.product.out_order]
    return Value(y.reshape(shape), self.product.out_order)

  def _by_kernel(self, image):
    return kernel.convolve(image, self.rows, self.bias, self.product.window, self.relu)

  def _by_bcsr(self, image):
    outputs, channels = self.matrix.shape[:2]
    values, starts = jnp.asarray(self.rows.values), jnp.asarray(self.rows.starts)
    columns = jnp.asarray(self.rows.places[0], jnp.int32)
    weights = sparse.BCSR((values, columns, starts), shape=(outputs, channels))
    return self._finished(weights @ image.reshape(channels, -1), (outputs, 1))

  def _finished(self, y, shape):
    y = y + jnp.asarray(self.bias).reshape(shape)
    return jnp.maximum(y, 0.0) if self.relu else y

  def _dense(self, x):
    p = self.product
    if p.image[1:3] == (1, 1) and p.is_matrix and x.is_moved:  # it lies as a product can take it
      outputs, channels = self.matrix.shape[:2]
      image = x.lying(p.data_order).reshape(channels, -1)
      return self._out(
        self._finished(jnp.asarray(self.matrix.reshape(outputs, channels)) @ image, (outputs, 1))
      )
    features = sorted(p.out_order[: p.out_features])
    shape = [n if i in features else 1 for i, n in enumerate(self.eqn.out_shapes[0])]
    return Value(self._finished(self._as_in_the_program(x.plain), shape))

  def _as_in_the_program(self, x):
    p, params = self.product, self.eqn.params
    kernel_shape = self.eqn.in_shapes[1 - p.data]
    weights = self.matrix.reshape([kernel_shape[axis] for axis in p.kernel_order])
    weights = jnp.asarray(weights.transpose(np.argsort(p.kernel_order)))
    if self.eqn.name == 'conv_general_dilated':
      numbers = params['dimension_numbers']
      if tuple(numbers) == IMAGES and p.window.dilation == (1, 1):
        (down, across), (rows, columns) = p.window.strides, p.window.padding
        return convolve(x, weights, (down, across), (rows, columns))
    [made] = self.eqn.bind([x, weights] if p.data == 0 else [weights, x])
    return made
