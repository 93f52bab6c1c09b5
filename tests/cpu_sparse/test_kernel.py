"""The C++ kernel compared with NumPy in float64."""

import jax
import numpy as np
import pytest

from sparsejax.cpu_sparse import compiling, kernel
from sparsejax.cpu_sparse.kernel import Window

BATCHES = 1, 2, 3, 5, 16, 23, 64


@pytest.fixture(scope='module', autouse=True)
def _compiled():
  try:
    kernel.register()
  except compiling.Unavailable as error:
    pytest.skip(str(error))


def convolution(x, weights, bias, window):
  """Returns the convolution in NumPy, summed over the taps."""
  padded = np.pad(x.astype(np.float64), ((0, 0), *window.padding, (0, 0)))
  sizes = zip(padded.shape[1:3], weights.shape[2:], window.strides, window.dilation, strict=True)
  outs = [max((size - (taps - 1) * apart - 1) // step + 1, 0) for size, taps, step, apart in sizes]
  made = np.zeros((len(weights), *outs, x.shape[3])) + bias.reshape(-1, 1, 1, 1)
  for i, j in np.ndindex(*weights.shape[2:]):
    top, left = i * window.dilation[0], j * window.dilation[1]
    seen = padded[:, top :: window.strides[0], left :: window.strides[1]][:, : outs[0], : outs[1]]
    made += np.einsum('oc,chwb->ohwb', weights[:, :, i, j].astype(np.float64), seen)
  return made


def drawn(rng, shape, density=1.0):
  return (rng.normal(size=shape) * (rng.random(shape) < density)).astype(np.float32)


def check(x, weights, bias, window, relu=False):
  sparse = kernel.nonzeros_of(weights)
  found = np.asarray(jax.jit(lambda x: kernel.convolve(x, sparse, bias, window, relu))(x))
  wanted = convolution(x, weights, bias, window)
  wanted = np.maximum(wanted, 0.0) if relu else wanted
  assert found.shape == wanted.shape
  np.testing.assert_allclose(found, wanted, atol=1e-5 * max(1.0, np.abs(wanted).max(initial=0)))


@pytest.mark.parametrize('batch', BATCHES)
def test_random_convolutions(batch):
  rng = np.random.default_rng(batch)
  for trial in range(6):
    channels, outputs, height, width = rng.integers(1, 11, 4)
    taps, strides, dilation = rng.integers(1, 5, 2), rng.integers(1, 4, 2), rng.integers(1, 3, 2)
    padding = tuple((int(a), int(b)) for a, b in rng.integers(0, 4, (2, 2)))
    window = Window(tuple(strides.tolist()), padding, tuple(dilation.tolist()))
    x = drawn(rng, (channels, height, width, batch))
    weights = drawn(rng, (outputs, channels, *taps), rng.random())
    check(x, weights, drawn(rng, outputs), window, relu=trial % 2 == 1)


@pytest.mark.parametrize('batch', [*BATCHES, 200])
def test_matrix_products_of_several_sizes(batch):
  rng = np.random.default_rng(batch)
  for outputs, inputs in ((1, 1), (7, 40), (50, 300)):
    x, weights = drawn(rng, (inputs, 1, 1, batch)), drawn(rng, (outputs, inputs, 1, 1), 0.2)
    check(x, weights, drawn(rng, outputs), Window())


@pytest.mark.parametrize(('channels', 'batch'), [(3, 2), (17, 5), (40, 70), (784, 64)])
def test_a_matrix_product_of_batch_first_values(channels, batch):
  rng = np.random.default_rng(0)
  x, weights = drawn(rng, (batch, channels)), drawn(rng, (9, channels, 1, 1), 0.3)
  found = kernel.convolve(x, kernel.nonzeros_of(weights), np.zeros(9, np.float32), Window())
  wanted = weights[:, :, 0, 0].astype(np.float64) @ x.T
  np.testing.assert_allclose(np.asarray(found).reshape(9, batch), wanted, atol=1e-4)


def test_a_product_computed_by_several_threads():
  rng = np.random.default_rng(0)
  x, weights = drawn(rng, (64, 24, 24, 16)), drawn(rng, (64, 64, 3, 3), 0.1)
  check(x, weights, drawn(rng, 64), Window(padding=((1, 1), (1, 1))), relu=True)


@pytest.mark.parametrize('batch', [5, 16, 23])
def test_threads_change_no_bit(batch):
  """Few outputs are computed by one thread; each row's last vector overlaps, unless batch is 16."""
  rng = np.random.default_rng(0)
  x, weights = drawn(rng, (32, 12, 12, batch)), drawn(rng, (64, 32, 3, 3), 0.1)
  bias, window = drawn(rng, 64), Window(padding=((1, 1), (0, 0)))
  made = kernel.convolve(x, kernel.nonzeros_of(weights), bias, window)
  for first in range(0, 64, 2):
    some = slice(first, first + 2)
    alone = kernel.convolve(x, kernel.nonzeros_of(weights[some]), bias[some], window)
    np.testing.assert_array_equal(made[some], alone)


def test_a_kernel_of_zeros_returns_the_bias():
  bias = np.array([1.0, -2.0], np.float32)
  sparse = kernel.nonzeros_of(np.zeros((2, 3, 3, 3), np.float32))
  made = kernel.convolve(np.ones((3, 5, 5, 2), np.float32), sparse, bias, Window(), relu=True)
  np.testing.assert_array_equal(made, np.broadcast_to([[[[1.0]]], [[[0.0]]]], (2, 3, 3, 2)))


def test_zero_weights_are_skipped_and_relu_keeps_nan():
  sparse = kernel.nonzeros_of(np.array([[0.0, 1.0], [2.0, 0.0]], np.float32).reshape(2, 2, 1, 1))
  x = np.array([np.inf, np.nan], np.float32).reshape(2, 1, 1, 1)
  made = kernel.convolve(x, sparse, np.zeros(2, np.float32), Window(), relu=True)
  np.testing.assert_array_equal(np.ravel(made), [np.nan, np.inf])


def test_vmap_equals_separate_calls():
  rng = np.random.default_rng(0)
  x, sparse = drawn(rng, (3, 4, 1, 1, 2)), kernel.nonzeros_of(drawn(rng, (5, 4, 1, 1), 0.5))

  def function(x):
    return kernel.convolve(x, sparse, np.zeros(5, np.float32), Window())

  one_by_one = np.stack([function(one) for one in x])
  np.testing.assert_array_equal(jax.vmap(function)(x), one_by_one)


def test_an_input_too_large_for_its_offsets_is_rejected():
  sparse = kernel.nonzeros_of(np.ones((1, 2, 1, 1), np.float32))
  layout = kernel.image_layout((2**15, 2**15), (1, 1), Window())
  with pytest.raises(ValueError, match='smaller batches'):
    kernel.offsets_of(sparse, layout, Window(), 1)
