"""Weights shared by k-means: values worked by hand, and properties of any weights."""

import re

import hypothesis
import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.shipping import share
from sparsejax.shipping.sharing import k_means


def squared_error(values, centroids):
  return np.min(np.square(values[:, None] - centroids), 1).sum()


@pytest.mark.parametrize(
  ('values', 'number', 'centroids'),
  [
    ([0.0, 1.0, 2.0, 10.0], 2, [1.0, 10.0]),  # from 0 and 10, whose midpoint is 5
    ([1.0, 2.0, 3.0, 4.0], 1, [2.5]),
    ([5.0, 1.0, 5.0, 1.0], 2, [1.0, 5.0]),
    ([3.0, 1.0, 3.0], 8, [1.0, 3.0]),  # fewer values than clusters
    ([7.0], 4, [7.0]),
    ([], 4, []),
    # From 0, 5 and 10: the second cluster is empty, and moves to 0, which is farthest from its own.
    ([0.0, 1.0, 9.0, 10.0], 3, [0.0, 1.0, 9.5]),
    # From 0, 2, 4 and 6: a midpoint such as 5 belongs to the upper cluster.
    ([0.0, 2.0, 4.0, 5.0, 6.0], 4, [0.0, 2.0, 4.0, 5.5]),
  ],
)
def test_centroids_worked_by_hand(values, number, centroids):
  np.testing.assert_allclose(k_means(np.array(values), number), centroids, rtol=1e-12)


@hypothesis.given(
  arrays.arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32)),
  st.integers(1, 16),
)
def test_no_cluster_is_empty_and_the_error_never_exceeds_that_of_the_start(values, number):
  centroids = k_means(values, number)
  values = values.astype(np.float64)
  assert 1 <= len(centroids) <= number
  assert np.all(np.diff(centroids) > 0)
  nearest = np.abs(values[:, None] - centroids).argmin(1)
  assert len(np.unique(nearest)) == len(centroids)
  start = np.linspace(values.min(), values.max(), number)
  assert squared_error(values, centroids) <= squared_error(values, start) + 1e-6
  if len(np.unique(values)) <= number:
    np.testing.assert_array_equal(centroids, np.unique(values))


def test_groups_of_values_far_apart_are_all_found():
  rng = np.random.default_rng(0)
  values = np.concatenate([rng.normal(at, 0.01, 50) for at in (0.0, 0.3, 100.0, 100.3)])
  centroids = k_means(values, 4)
  np.testing.assert_allclose(centroids, [0.0, 0.3, 100.0, 100.3], atol=0.01)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize('bits', [1, 4, 8])
def test_zeros_have_no_cluster_and_other_weights_have_two_to_the_bits_values(bits, dtype):
  rng = np.random.default_rng(0)
  kernel = jnp.asarray(rng.normal(size=(60, 50)) * (rng.random((60, 50)) < 0.4), dtype)
  params = {'kernel': kernel, 'bias': jnp.ones(50, dtype)}
  shared = share(params, bits)
  found, ids, book = (
    shared.params['kernel'],
    shared.ids['kernel'],
    shared.codebooks['kernel'],
  )
  assert found.dtype == book.dtype == kernel.dtype
  np.testing.assert_array_equal(found == 0, kernel == 0)
  np.testing.assert_array_equal(ids == -1, kernel == 0)
  np.testing.assert_array_equal(found[ids >= 0], book[ids[ids >= 0]])
  assert len(book) == min(2**bits, len(np.unique(kernel)) - 1) or dtype != jnp.float32
  assert len(book) <= 2**bits
  np.testing.assert_array_equal(np.unique(ids[ids >= 0]), np.arange(len(book)))
  np.testing.assert_array_equal(shared.params['bias'], params['bias'])
  again = share(shared.params, bits)
  np.testing.assert_array_equal(again.params['kernel'], found)


def test_each_layer_has_its_own_bits_and_the_first_match_counts():
  rng = np.random.default_rng(0)
  params = {name: {'kernel': rng.normal(size=(9, 9))} for name in ('conv1', 'conv2', 'fc', 'out')}
  shared = share(params, {'conv1': 1, '^conv': 3, 'fc': 2})
  sizes = {path: len(book) for path, book in shared.codebooks.items()}
  assert sizes == {'conv1/kernel': 2, 'conv2/kernel': 8, 'fc/kernel': 4}
  assert shared.params['out']['kernel'] is params['out']['kernel']


def test_layers_without_nonzero_weights_are_unchanged():
  params = {'a': {'kernel': np.zeros((3, 2), np.float32)}, 'b': {'kernel': np.zeros((0, 2))}}
  shared = share(params, 3)
  assert not any(map(len, shared.codebooks.values()))
  np.testing.assert_array_equal(shared.params['a']['kernel'], params['a']['kernel'])
  assert shared.ids['b/kernel'].shape == (0, 2)


def test_centroids_are_rounded_to_the_precision_and_a_zero_one_prunes():
  kernel = np.array([[1.0001, 1e-9], [2.0, 0.0]], np.float32)
  shared = share({'kernel': kernel}, 2, precision='float16')
  assert shared.params['kernel'].tolist() == [[1.0, 0.0], [2.0, 0.0]]
  assert shared.params['kernel'].dtype == np.float32
  assert shared.codebooks['kernel'].tolist() == [1.0, 2.0]
  assert shared.ids['kernel'].tolist() == [[0, -1], [1, -1]]


KERNEL = {'fc1': {'kernel': np.ones((2, 2), np.float32)}}


@pytest.mark.parametrize(
  ('params', 'arguments', 'message'),
  [
    (KERNEL, {'bits': 0}, 'bits=0 must be a whole number from 1 to 8'),
    (KERNEL, {'bits': 9}, 'bits=9 must be a whole number from 1 to 8'),
    (KERNEL, {'bits': True}, 'bits=True must be a whole number from 1 to 8'),
    (KERNEL, {'bits': {'fc1': 2.5}}, "bits['fc1']=2.5 must be a whole number from 1 to 8"),
    (KERNEL, {'bits': {1: 2}}, 'bits={1: 2} must have expressions over paths as keys'),
    (
      KERNEL,
      {'bits': {'fc1/kernle': 2}},
      "bits: the pattern 'fc1/kernle' must match a layer that is shared: did you mean "
      "'fc1/kernel'?",
    ),
    (KERNEL, {'bits': 2, 'iterations': 0}, 'iterations=0 must be a whole number, 1 or more'),
    (
      KERNEL,
      {'bits': 2, 'precision': 'int8'},
      "precision='int8' must be one of 'float16', 'bfloat16', 'float32', or None",
    ),
    (
      {'kernel': np.array([[1e5, 1.0]], np.float32)},
      {'bits': 2, 'precision': 'float16'},
      "precision='float16' must hold the values of 'kernel', the largest of which is 100000",
    ),
    (
      {'kernel': np.array([[np.nan, 1.0]], np.float32)},
      {'bits': 2},
      "the weights of 'kernel' must be finite to be shared",
    ),
  ],
)
def test_weights_that_cannot_be_shared_are_refused_in_one_line(params, arguments, message):
  with pytest.raises(ValueError, match=f'^{re.escape(message)}$'):
    share(params, **arguments)
