"""Weight sharing: each layer's nonzero weights are rounded to a few values, found by k-means."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.internal.lookup import nearest
from sparsejax.sparsity.leaves import tree

MOST_BITS = 8
Bits = int | Mapping[str, int]


class Shared(NamedTuple):
  """Parameters whose weights share values.

  params: the parameters, with each shared weight at the centroid of its cluster.
  ids: {path: the cluster of each weight, or -1 for a zero}; int16, of the leaf's shape.
  codebooks: {path: the centroids in increasing order}; of the leaf's dtype.
  """

  params: Any
  ids: dict[str, np.ndarray]
  codebooks: dict[str, np.ndarray]


def share(
  params: Any,
  bits: Bits,
  *,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  precision: str | None = None,
  iterations: int = 100,
) -> Shared:
  r"""Rounds the nonzero weights of each layer to at most 2^bits values of its own.

  .. math:: w_i = c_{k(i)}, \quad \min_{c, k} \sum_{i: w_i \ne 0} (w_i - c_{k(i)})^2

  by Lloyd's algorithm, starting from centroids that are spaced evenly between the layer's smallest
  and largest weight. The centroid of a cluster that becomes empty moves to the weight farthest from
  its own centroid. Zeros belong to no cluster, so pruned weights stay pruned. A layer with at most
  2^bits values keeps them all, so sharing a second time changes nothing.

  Args:
    params: any pytree of arrays.
    bits: the number of bits of a layer's cluster ids, 1 to 8; or {pattern: bits}, where the first
      regular expression that matches a layer's path counts. A layer whose path matches none is
      unchanged.
    parameters: which leaves are shared, as in `prune`: 'kernels', 'all', a function of (path,
      leaf), or several.
    exclude: regular expressions (or one) over paths; each must match something.
    precision: a dtype to round the centroids to, such as 'float16', or None for no rounding. The
      leaf keeps its own dtype. A centroid that is rounded to zero prunes its weights.
    iterations: the maximum number of iterations, 1 or more.

  Returns:
    The shared parameters, and each leaf's ids and codebook, all as NumPy arrays.

  Raises:
    ValueError: if bits are not 1 to 8, a pattern matches no layer, weights are not finite or are
      too large for the precision, or the choice of parameters matches nothing.

  Example:
    >>> layer = {'kernel': jnp.array([[0.0, 1.0, 2.0], [3.0, 10.0, 0.0]])}
    >>> shared = share(layer, bits=1)
    >>> shared.params['kernel'].tolist()
    [[0.0, 2.0, 2.0], [2.0, 10.0, 0.0]]
    >>> shared.codebooks['kernel'].tolist(), shared.ids['kernel'].tolist()
    ([2.0, 10.0], [[-1, 0, 0], [0, 1, -1]])

  References:
    Han, Mao and Dally 2016, https://arxiv.org/abs/1510.00149
  """
  chosen = tree.named_leaves(tree.choose(params, parameters, exclude))
  widths = bits_by_layer(bits, [path for path, is_chosen in chosen.items() if is_chosen])
  iterations = _iterations(iterations)
  dtype = _dtype(precision)
  ids, codebooks, leaves = {}, {}, []
  for path, leaf in tree.named_leaves(jax.device_get(params)).items():
    if path in widths:
      leaf, ids[path], codebooks[path] = _shared(
        path, np.asarray(leaf), 2 ** widths[path], iterations, dtype
      )
    leaves.append(leaf)
  return Shared(jax.tree.unflatten(jax.tree.structure(params), leaves), ids, codebooks)


def rounded(params: Any, precision: str) -> Any:
  """Rounds every floating-point value to the precision of a dtype; leaves keep their own dtype.

  Args:
    params: any pytree of arrays.
    precision: 'float16', 'bfloat16' or 'float32'.

  Raises:
    ValueError: if a value is too large for the precision.

  Example:
    >>> rounded({'bias': np.array([1.0001, 2.0], np.float32)}, 'float16')
    {'bias': array([1., 2.], dtype=float32)}
  """
  dtype = _dtype(precision)
  found = []
  for path, leaf in tree.named_leaves(jax.device_get(params)).items():
    is_floating = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    found.append(_rounded(path, np.asarray(leaf), dtype) if is_floating else leaf)
  return jax.tree.unflatten(jax.tree.structure(params), found)


def bits_by_layer(bits: Bits, paths: Sequence[str]) -> dict[str, int]:
  """Returns {path: bits} for the layers that are to be shared.

  Raises:
    ValueError: if bits are not 1 to 8, or a pattern matches no layer.

  Example:
    >>> bits_by_layer({'^conv': 8, 'fc1': 5}, ['conv1/kernel', 'fc1/kernel', 'fc2/kernel'])
    {'conv1/kernel': 8, 'fc1/kernel': 5}
  """
  if not isinstance(bits, Mapping):
    return dict.fromkeys(paths, whole_bits(bits))
  found = {}
  for pattern, width in bits.items():
    if not isinstance(pattern, str):
      raise ValueError(f'bits={{{pattern!r}: {width!r}}} must have expressions over paths as keys')
    tree.patterns(pattern, 'bits')
    whole_bits(width, f"bits['{pattern}']")
    matched = [path for path in paths if re.search(pattern, path)]
    if not matched:
      hint = nearest(pattern, paths, cutoff=0.5) or f' there are {", ".join(paths)}'
      raise ValueError(f"bits: the pattern '{pattern}' must match a layer that is shared:{hint}")
    found |= {path: width for path in matched if path not in found}
  return {path: found[path] for path in paths if path in found}


def whole_bits(bits: Any, name: str = 'bits') -> int:
  """Returns a number of bits, or raises a ValueError if it is not 1 to 8."""
  if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 1 <= bits <= MOST_BITS:
    raise ValueError(f'{name}={bits!r} must be a whole number from 1 to {MOST_BITS}')
  return int(bits)


def k_means(values: np.ndarray, number: int, iterations: int = 100) -> np.ndarray:
  """Clusters numbers, and returns the centroids in increasing order; no cluster is empty.

  Args:
    values: numbers, in any shape.
    number: the maximum number of clusters, 1 or more. With no more distinct values than that, each
      value is a centroid.
    iterations: the maximum number of iterations of Lloyd's algorithm.

  Example:
    >>> k_means(np.array([0.0, 1.0, 2.0, 10.0]), 2).tolist()
    [1.0, 10.0]
  """
  ordered = np.sort(np.ravel(values)).astype(np.float64)
  if np.count_nonzero(np.diff(ordered)) < number:
    return np.unique(ordered)
  sums = np.concatenate([[0.0], np.cumsum(ordered)])
  centroids = np.linspace(ordered[0], ordered[-1], number)
  for _ in range(iterations):
    edges = _edges(ordered, centroids)
    previous = centroids
    counts = np.diff(edges)
    means = np.diff(sums[edges]) / np.maximum(counts, 1)
    centroids = np.sort(_refilled(ordered, edges, np.where(counts > 0, means, previous)))
    if np.array_equal(centroids, previous):
      break
  return centroids[np.diff(_edges(ordered, centroids)) > 0]


def _edges(ordered: np.ndarray, centroids: np.ndarray) -> np.ndarray:
  """Returns where each cluster begins in the ordered values, and where the last one ends."""
  inner = np.searchsorted(ordered, _middles(centroids))
  return np.concatenate([[0], inner, [len(ordered)]])


def _middles(centroids: np.ndarray) -> np.ndarray:
  return (centroids[1:] + centroids[:-1]) / 2


def _refilled(ordered: np.ndarray, edges: np.ndarray, centroids: np.ndarray) -> np.ndarray:
  """Moves the centroids of empty clusters to the values farthest from their own centroids.

  The farthest value of a cluster is its first or its last.
  """
  empty = np.flatnonzero(np.diff(edges) == 0)
  if not len(empty):
    return centroids
  full = np.flatnonzero(np.diff(edges))
  ends = np.concatenate([ordered[edges[full]], ordered[edges[full + 1] - 1]])
  far = np.argsort(-np.abs(ends - np.tile(centroids[full], 2)), kind='stable')
  empty = empty[: len(far)]
  centroids[empty] = ends[far[: len(empty)]]
  return centroids


def _shared(path: str, leaf: np.ndarray, number: int, iterations: int, dtype):
  """Returns the leaf with each weight at the centroid of its cluster, the ids and the codebook."""
  ids = np.full(leaf.shape, -1, np.int16)
  kept = leaf != 0
  weights = leaf[kept].astype(np.float64)
  if not np.all(np.isfinite(weights)):
    raise ValueError(f"the weights of '{path}' must be finite to be shared")
  centroids = k_means(weights, number, iterations)
  values = _rounded(path, centroids.astype(leaf.dtype), dtype)
  shared = np.zeros_like(leaf)
  if len(values):
    shared[kept] = values[np.searchsorted(_middles(centroids), weights, side='right')]
  # Rounding may have merged centroids, or made one zero.
  codebook = np.unique(values[values != 0])
  ids[shared != 0] = np.searchsorted(codebook, shared[shared != 0])
  return shared, ids, codebook


def _rounded(path: str, values: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
  """Rounds values to a dtype, keeping their own; None rounds nothing."""
  if dtype is None:
    return values
  with np.errstate(over='ignore', under='ignore'):
    found = values.astype(dtype).astype(values.dtype)
  if not np.array_equal(np.isfinite(found), np.isfinite(values)):
    largest = np.max(np.abs(values[np.isfinite(values)]))
    raise ValueError(
      f"precision='{dtype}' must hold the values of '{path}', the largest of which is {largest:g}"
    )
  return found


def _iterations(iterations: Any) -> int:
  if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
    raise ValueError(f'iterations={iterations!r} must be a whole number, 1 or more')
  return iterations


def _dtype(precision: Any) -> np.dtype | None:
  if precision is None:
    return None
  names = ('float16', 'bfloat16', 'float32')
  if precision not in names:
    allowed = ', '.join(map(repr, names))
    raise ValueError(f'precision={precision!r} must be one of {allowed}, or None')
  return np.dtype(jnp.dtype(precision))
