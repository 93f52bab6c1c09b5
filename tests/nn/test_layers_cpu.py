"""The formulations for CPU equal XLA's own convolution and pooling, in value and in gradient."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparsejax.cpu_conv import (
  choice,
  convolution,
  convolution_gradients,
  image_blocks,
  strips,
  winograd,
)
from sparsejax.nn import pooling

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

PATCHES = ('im2col', 'input_gradient_by_im2col', 'kernel_gradient_by_blocks')
STRIDED = ('direct', 'input_gradient_by_im2col', 'kernel_gradient_by_blocks')
WIDE = ('direct', 'input_gradient_by_direct', 'kernel_gradient_by_blocks')
NARROW = ('direct', 'input_gradient_by_direct', 'kernel_gradient_by_direct')
WINOGRAD = ('winograd', 'input_gradient_by_winograd', 'kernel_gradient_by_winograd')
WIDE_WINOGRAD = ('winograd', 'input_gradient_by_winograd', 'kernel_gradient_by_blocks')
STRIPS = ('strips', 'input_gradient_by_strips', 'kernel_gradient_by_strips')
# height, width, inputs, features, kernel, stride, padding, groups -> what computes the values, the
# gradient of the images and that of the kernel; with groups, all of it
CASES = {
  'vgg16, a 2x2 image': ((2, 2, 4, 6, 3, 1, 1, 1), PATCHES),
  'a 1x1 image': ((1, 1, 4, 6, 3, 1, 1, 1), PATCHES),
  'a 1x3 image': ((1, 3, 4, 6, 3, 1, 1, 1), PATCHES),
  'a 2x2 image at stride 2': ((2, 2, 4, 6, 3, 2, 1, 1), PATCHES),
  'odd at stride 2': ((5, 7, 4, 6, 3, 2, 1, 1), STRIDED),
  'even at stride 2': ((8, 8, 3, 5, 3, 2, 1, 1), STRIDED),
  'pointwise': ((5, 6, 4, 6, 1, 1, 0, 1), PATCHES),
  'pointwise at stride 2': ((5, 6, 4, 6, 1, 2, 0, 1), PATCHES),
  'wide': ((9, 10, 5, 6, 3, 1, 1, 1), WIDE),
  'narrow': ((8, 8, 5, 6, 3, 1, 1, 1), NARROW),
  'few channels': ((9, 10, 3, 6, 3, 1, 1, 1), STRIPS),
  'few channels, much padding': ((9, 7, 1, 70, 5, 1, 3, 1), STRIPS),
  'wide, without padding': ((17, 18, 5, 4, 5, 1, 0, 1), WIDE),
  'without padding': ((9, 12, 5, 4, 5, 1, 0, 1), STRIPS),
  'many channels': ((8, 8, 32, 48, 3, 1, 1, 1), WINOGRAD),
  'many channels, odd': ((5, 7, 32, 33, 3, 1, 1, 1), WINOGRAD),
  'many channels, 2x2': ((2, 2, 32, 32, 3, 1, 1, 1), WINOGRAD),
  'many channels, without padding': ((4, 6, 32, 32, 3, 1, 0, 1), WINOGRAD),
  'many channels, much padding': ((4, 5, 32, 32, 3, 1, 2, 1), WINOGRAD),
  'many channels, more padding than taps': ((4, 5, 32, 32, 3, 1, 3, 1), NARROW),
  'many channels, wide': ((17, 16, 32, 32, 3, 1, 1, 1), WIDE_WINOGRAD),
  'more channels, wide': ((17, 16, 96, 96, 3, 1, 1, 1), WINOGRAD),
  'many channels at stride 2': ((8, 8, 32, 32, 3, 2, 1, 1), STRIDED),
  'depthwise': ((6, 7, 5, 5, 3, 1, 1, 5), 'multiply_add'),
  'depthwise at stride 2': ((7, 6, 5, 5, 3, 2, 1, 5), 'multiply_add'),
  'depthwise over 1x1': ((1, 1, 5, 5, 3, 2, 1, 5), 'multiply_add'),
  'depthwise, two outputs each': ((5, 5, 3, 6, 3, 1, 1, 3), 'multiply_add'),
  'depthwise, more padding than taps': ((4, 5, 5, 5, 3, 1, 3, 5), 'multiply_add'),
  '3x3 pairs': ((5, 6, 8, 8, 3, 1, 1, 4), 'multiply_add'),
  'butterfly pairs': ((3, 3, 8, 8, 1, 1, 0, 4), 'multiply_add'),
  'wide groups': ((5, 5, 8, 8, 3, 1, 1, 2), 'direct'),
}


def normal(shape, dtype, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def value_and_gradients(function, *arguments):
  """The value, and the gradients of its product with fixed random numbers."""
  y = jax.eval_shape(function, *arguments)
  cotangent = normal(y.shape, y.dtype, seed=1)

  def evaluate(cotangent, *arguments):
    y, pull = jax.vjp(function, *arguments)
    return y, *pull(cotangent)

  return jax.jit(evaluate)(cotangent, *arguments)


def many(height, width):
  """The least number of images, two or more, that have more than a few pixels together."""
  return max(2, 1 + convolution.FEW // (height * width))


def both(height, width, inputs, features, size, stride, padding, groups, dtype, images=None):
  """Ours and the direct convolution, and arguments for them."""

  def call(formulation):
    pads = ((padding, padding), (padding, padding))
    return lambda x, kernel: formulation(x, kernel, (stride, stride), pads, groups)

  x = normal((images or many(height, width), height, width, inputs), dtype)
  kernel = normal((size, size, inputs // groups, features), dtype, seed=2)
  return call(convolution.convolve), call(convolution.direct), (x, kernel)


def assert_close(ours, theirs):
  """The same sums in another order differ by a few roundings of their largest terms."""
  for got, wanted in zip(ours, theirs, strict=True):
    assert got.dtype == wanted.dtype
    error = 40 * float(jnp.finfo(got.dtype).eps)
    got, wanted = np.float32(got), np.float32(wanted)
    np.testing.assert_allclose(got, wanted, rtol=error, atol=error * np.abs(wanted).max())


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('case', CASES)
def test_convolution_equals_the_direct_one(case, dtype):
  shape, _ = CASES[case]
  ours, theirs, arguments = both(*shape, dtype)
  assert_close(value_and_gradients(ours, *arguments), value_and_gradients(theirs, *arguments))


@pytest.mark.parametrize('channels', [1, 3, 8, 32])
@pytest.mark.parametrize(
  ('images', 'shape'),
  [((0, 12, 12), (0, 10, 10, 5)), ((2, 30, 2), (2, 28, 0, 5)), ((2, 2, 30), (2, 0, 28, 5))],
)
def test_no_images_or_too_small_ones_give_nothing(channels, images, shape):
  x, kernel = jnp.zeros((*images, channels)), jnp.ones((3, 3, channels, 5))
  assert convolution.convolve(x, kernel, padding=((0, 0), (0, 0))).shape == shape


@pytest.mark.parametrize('case', CASES)
def test_what_computes_a_convolution(case):
  (height, width, inputs, features, size, stride, padding, groups), chosen = CASES[case]
  kernel = jnp.ones((size, size, inputs // groups, features))
  image, strides = (many(height, width), height, width, inputs), (stride, stride)
  seen, padding = convolution.visible(image, kernel, strides, ((padding, padding),) * 2)
  if groups > 1:
    assert convolution.fastest_grouped(seen.shape, groups).__name__ == chosen
  else:
    parts = convolution.fastest(image, seen.shape, strides, padding)
    assert tuple(part.__name__ for part in parts) == chosen


@pytest.mark.parametrize(('images', 'size'), [(1, 8), (4, 4), (16, 2)])
def test_a_few_pixels_are_not_worth_a_transform_of_the_kernel(images, size):
  image, kernel, around = (images, size, size, 32), (3, 3, 32, 48), ((1, 1), (1, 1))
  parts = convolution.fastest(image, kernel, (1, 1), around)
  assert tuple(part.__name__ for part in parts) == ('im2col', *WINOGRAD[1:])
  more = convolution.fastest((images + 1, *image[1:]), kernel, (1, 1), around)
  assert tuple(part.__name__ for part in more) == WINOGRAD
  ours, theirs, arguments = both(size, size, 32, 48, 3, 1, 1, 1, jnp.float32, images)
  assert_close(value_and_gradients(ours, *arguments), value_and_gradients(theirs, *arguments))


def test_a_symbolic_number_of_images_counts_as_many():
  (images,) = jax.export.symbolic_shape('images')
  x, kernel = normal((3, 4, 4, 32), jnp.float32), normal((3, 3, 32, 32), jnp.float32)
  shape = jax.ShapeDtypeStruct((images, *x.shape[1:]), jnp.float32)
  program = jax.export.export(jax.jit(lambda x: convolution.convolve(x, kernel)))(shape)
  around = (1, 1), (1, 1)
  assert_close([program.call(x)], [convolution.direct(x, kernel, (1, 1), around)])


@pytest.mark.parametrize(('rows', 'images'), [(1, 1), (300, 3), (10**6, 6)])
def test_blocks_of_any_size_make_the_whole(rows, images, monkeypatch):
  """Six images of 8x9 positions: one at a time, three (300 rows hold four), all at once."""
  monkeypatch.setattr(image_blocks, 'ROWS', rows)
  x, gradient = normal((6, 8, 9, 3), jnp.float32), normal((6, 8, 9, 5), jnp.float32, seed=1)
  assert image_blocks.images_per_block(gradient) == images
  kernel = normal((3, 3, 3, 5), jnp.float32, seed=2)
  arguments = x, kernel, gradient, (1, 1), ((1, 1), (1, 1))
  direct = convolution_gradients.kernel_gradient_by_direct(*arguments)
  assert_close([convolution_gradients.kernel_gradient_by_blocks(*arguments)], [direct])


def test_a_block_is_of_the_most_images_that_divide_the_batch():
  assert [image_blocks.largest_divisor(128, most) for most in (1, 3, 7, 200)] == [1, 2, 4, 128]
  assert image_blocks.largest_divisor(7, 6) == 1


@pytest.mark.parametrize('channels', [2, 32])
def test_curvature_goes_through_the_assembled_convolution(channels):
  """Forward over reverse, as a product of the Hessian with a vector is computed."""
  x = normal((2, 9, 10, channels), jnp.float32)
  kernel = normal((3, 3, channels, 32), jnp.float32, seed=2) / channels

  def product(convolve):
    def loss(kernel):
      return jnp.sum(convolve(x, kernel) ** 3)

    return jax.jit(lambda v: jax.jvp(jax.grad(loss), (kernel,), (v,))[1])(jnp.ones_like(kernel))

  theirs = product(lambda x, k: convolution.direct(x, k, (1, 1), ((1, 1), (1, 1))))
  assert_close([product(convolution.convolve)], [theirs])


@settings(max_examples=10, deadline=None)
@given(
  height=st.integers(1, 6),
  width=st.integers(1, 6),
  size=st.integers(1, 3),
  stride=st.integers(1, 3),
  padding=st.integers(0, 2),
  groups=st.sampled_from([1, 2, 4]),
)
def test_convolution_of_any_shape(height, width, size, stride, padding, groups):
  assume(min(height, width) + 2 * padding >= size)
  shape = (height, width, 4, 4, size, stride, padding, groups)
  ours, theirs, arguments = both(*shape, jnp.float32)
  assert_close(*jax.jit(lambda *a: ([ours(*a)], [theirs(*a)]))(*arguments))


def equal_the_direct_ones(x, kernel, padding, forward, images, kernel_gradient):
  """Asserts that a convolution at stride 1 and its gradients are XLA's own."""

  gradients, rest = convolution_gradients, ((1, 1), padding)

  @jax.jit
  def both_ways(x, kernel):
    y = convolution.direct(x, kernel, *rest)
    arguments = x, kernel, normal(y.shape, y.dtype, seed=1), *rest
    ours = forward(x, kernel, *rest), images(*arguments), kernel_gradient(*arguments)
    return ours, (
      y,
      gradients.input_gradient_by_direct(*arguments),
      gradients.kernel_gradient_by_direct(*arguments),
    )

  assert_close(*both_ways(x, kernel))


@settings(max_examples=12, deadline=None)
@given(
  height=st.integers(1, 7),
  width=st.integers(1, 7),
  before=st.integers(0, 2),
  after=st.integers(0, 2),
)
def test_winograd_of_any_image_equals_the_direct_convolution(height, width, before, after):
  assume(min(height, width) + before + after >= 3)
  padding = ((before, after), (after, before))
  x, kernel = normal((2, height, width, 3), jnp.float32), normal((3, 3, 3, 4), jnp.float32, seed=2)
  ways = (
    winograd.winograd,
    winograd.input_gradient_by_winograd,
    winograd.kernel_gradient_by_winograd,
  )
  equal_the_direct_ones(x, kernel, padding, *ways)


@settings(max_examples=20, deadline=None)
@given(
  height=st.integers(2, 7),
  width=st.integers(3, 9),
  before=st.integers(0, 2),
  after=st.integers(0, 2),
  features=st.sampled_from([1, 33, 50, 129]),
)
def test_strips_of_any_image_equal_the_direct_convolution(height, width, before, after, features):
  """A kernel of two rows and three columns; of the features 4, 3, 2 and 1 go in a strip."""
  padding = ((before, after), (after, before))
  x = normal((2, height, width, 3), jnp.float32)
  kernel = normal((2, 3, 3, features), jnp.float32, seed=2)
  ways = strips.strips, strips.input_gradient_by_strips, strips.kernel_gradient_by_strips
  equal_the_direct_ones(x, kernel, padding, *ways)


def test_strips_are_at_stride_1_alone():
  with pytest.raises(ValueError, match=r'strides \(1, 2\) must be 1 along'):
    strips.strips(jnp.ones((1, 8, 8, 1)), jnp.ones((3, 3, 1, 1)), (1, 2), ((1, 1), (1, 1)))


@pytest.mark.parametrize(('size', 'strides'), [(3, (2, 1)), (5, (1, 1))])
def test_winograd_is_of_3x3_kernels_at_stride_1_alone(size, strides):
  x, kernel = jnp.ones((1, 8, 8, 1)), jnp.ones((size, size, 1, 1))
  with pytest.raises(ValueError, match='must be 3x3 at stride 1'):
    winograd.winograd(x, kernel, strides, ((1, 1), (1, 1)))


def test_sums_in_bfloat16_are_too_coarse_for_winograd():
  shapes = (1, 8, 8, 32), (3, 3, 32, 32), (1, 1), ((1, 1), (1, 1))
  assert convolution.fastest(*shapes, jnp.bfloat16).forward is convolution.direct


def test_tree_step_along_a_sequence():
  x = jnp.arange(8.0).reshape(1, 1, 4, 2)  # four positions of two maps
  kernel = jnp.array([[[[1, 0, 1, 0]], [[0, 1, 1, 0]]]], jnp.float32)  # (1, 2, 1, 4)
  y = convolution.convolve(x, kernel, (1, 2), ((0, 0), (0, 0)), groups=2)
  # From map 0 at positions (p, p + 1): the first, the second; from map 1: their sum, nothing.
  np.testing.assert_array_equal(y, [[[[0, 2, 1 + 3, 0], [4, 6, 5 + 7, 0]]]])


def test_only_the_middle_of_a_kernel_sees_a_1x1_image():
  kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
  seen, padding = convolution.visible((1, 1, 1, 1), kernel, (1, 1), ((1, 1), (1, 1)))
  assert seen.shape == (1, 1, 1, 1)
  assert seen.item() == 4
  assert padding == ((0, 0), (0, 0))


def on_an_accelerator():
  return mock.patch.object(jax, 'default_backend', return_value='gpu')


@pytest.mark.parametrize('where', [on_an_accelerator, choice.plain])
def test_an_accelerator_gets_the_direct_convolution_and_so_does_who_asks(where):
  x, kernel = jnp.ones((2, 2, 2, 4)), jnp.ones((3, 3, 4, 6))
  with where():
    jaxpr = jax.make_jaxpr(lambda *a: convolution.convolve(*a))(x, kernel)
    pooled = jax.make_jaxpr(lambda x: pooling.max_pool(x))(x)
  assert [equation.primitive.name for equation in jaxpr.eqns] == ['conv_general_dilated']
  assert 'reduce_window_max' in str(pooled)


def test_after_an_error_within_the_plain_formulations_are_left():
  with pytest.raises(KeyError), choice.plain():
    raise KeyError
  assert not choice.is_plain()


def reference_pool(x):
  return nn.max_pool(x, (2, 2), strides=(2, 2))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('shape', [(2, 4, 6, 3), (1, 5, 7, 2), (2, 2, 3, 1)])
def test_max_pool_with_many_ties(shape, dtype):
  x = jax.random.randint(jax.random.key(0), shape, 0, 3).astype(dtype)
  ours, theirs = value_and_gradients(pooling.max_pool, x), value_and_gradients(reference_pool, x)
  for got, wanted in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(np.float32(got), np.float32(wanted))


def test_a_tie_gives_its_gradient_to_the_first():
  x = jnp.array([[1.0, 5.0], [5.0, 5.0]]).reshape(1, 2, 2, 1)
  gradient = jax.grad(lambda x: pooling.max_pool(x).sum())(x)
  np.testing.assert_array_equal(gradient.reshape(2, 2), [[0, 1], [0, 0]])


@pytest.mark.parametrize('place', range(4))
def test_max_pool_passes_nan_on(place):
  x = jnp.arange(4.0).at[place].set(jnp.nan).reshape(1, 2, 2, 1)
  assert jnp.isnan(pooling.max_pool(x)).all()
