"""Trains shared weights: each cluster is one parameter; its gradient is the sum of its weights'."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.shipping.sharing import MOST_BITS, whole_bits
from sparsejax.sparsity.leaves import tree
from sparsejax.transforms.inner.masking import copy_holes, lazily
from sparsejax.transforms.inner.running import running_inside


class ShareWeightsState(NamedTuple):
  """State of `share_weights`."""

  ids: optax.Params  # uint16, of the leaf's shape: each weight's cluster from 1 on, 0 for a zero
  firsts: optax.Params  # int32, shape (2**bits,): the flat index of one weight in each cluster
  inner_state: optax.OptState


def share_weights(
  bits: int = MOST_BITS,
  *,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Trains one value for each cluster of weights that are equal when training starts.

  .. math:: w_i = c_{k(i)}, \quad
    \frac{\partial L}{\partial c_k} = \sum_{i: k(i) = k} \frac{\partial L}{\partial w_i}

  The clusters are found from the parameters passed to `init`, such as those of `shipping.share`:
  equal weights of a leaf form a cluster and move together from then on. Zeros belong to no cluster
  and stay zero.

  Give the optimizer as `inner`. It then trains the centroids themselves, a vector of length 2^bits
  for each leaf, and keeps its slots for these instead of for each weight. Without `inner`, place
  this **last** in the chain, after an optimizer that is linear in the gradient (SGD, momentum),
  because it sums the updates that reach it. Since the gradient is a sum and not a mean, SGD needs a
  smaller learning rate for larger clusters; Adam does not.

  Args:
    bits: a leaf may have at most 2^bits clusters; 1 to 8.
    parameters: which leaves are shared, as in `prune`: 'kernels', 'all', a function of (path,
      leaf), or several.
    exclude: regular expressions (or one) over paths; each must match something.
    inner: the transformation to run on the centroids.

  Returns:
    A transformation whose state holds `ids`; read them with `optax.tree.get(state, 'ids')`.

  Raises:
    ValueError: at once, if bits are not 1 to 8; at `init`, if a leaf has more values than clusters
      or the choice of parameters matches nothing; at `update`, without `params`. A traced `init`
      cannot see values, so the updates of a leaf that has too many are NaN instead.

  Example:
    >>> tx = share_weights(inner=optax.sgd(1.0))
    >>> params = {'kernel': jnp.array([[2.0, 2.0, 5.0, 0.0]])}
    >>> grad = {'kernel': jnp.array([[0.25, 0.5, 1.0, 9.0]])}
    >>> updates, _ = tx.update(grad, tx.init(params), params)
    >>> optax.apply_updates(params, updates)['kernel'].tolist()
    [[1.25, 1.25, 4.0, 0.0]]

  References:
    Han, Mao and Dally 2016, https://arxiv.org/abs/1510.00149
  """
  number = 2 ** whole_bits(bits)
  inner = running_inside(inner)

  def init_fn(params):
    chosen = tree.choose(params, parameters, exclude)
    found = [
      _clusters(path, leaf, number) if is_chosen and jnp.ndim(leaf) else _not_shared(leaf)
      for (path, leaf), is_chosen in zip(
        tree.named_leaves(params).items(), jax.tree.leaves(chosen), strict=True
      )
    ]
    of_params = jax.tree.structure(params)
    ids, firsts = (of_params.unflatten([pair[i] for pair in found]) for i in range(2))
    return ShareWeightsState(ids, firsts, inner.init(_centroids(firsts, params)))

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    ids, firsts, inner_state = state
    centroids = _centroids(firsts, params)
    extra_args = _of_centroids(extra_args, updates, ids, firsts)
    moves, inner_state = inner.update(
      _sums(ids, firsts, updates), inner_state, centroids, **extra_args
    )
    updates = jax.tree.map(_weight_updates, ids, firsts, centroids, moves, params)
    return updates, ShareWeightsState(ids, firsts, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


# The clusters


def _clusters(path: str, leaf: Any, number: int) -> tuple[jax.Array, jax.Array]:
  """Returns each weight's cluster, 0 for zeros, and the flat index of one weight per cluster."""
  flat = jnp.ravel(leaf)
  order = jnp.argsort(flat)
  ordered = flat[order]
  differs = jnp.concatenate([jnp.ones(min(1, flat.size), bool), ordered[1:] != ordered[:-1]])
  begins = differs & (ordered != 0)
  ranks = jnp.cumsum(begins, dtype=jnp.int32)
  found = ranks[-1] if flat.size else jnp.int32(0)
  if not isinstance(found, jax.core.Tracer) and found > number:
    raise ValueError(
      f"'{path}' has {found} nonzero values and must have at most {number}: share its weights "
      'first, with sparsejax.shipping.share, or raise bits=, to 8 at most'
    )
  ids = jnp.zeros(flat.size, jnp.uint16)
  ids = ids.at[order].set(jnp.where(ordered != 0, ranks, 0).astype(jnp.uint16))
  firsts = jnp.full(number, flat.size, jnp.int32)
  firsts = firsts.at[jnp.where(begins, ranks - 1, number)].set(order, mode='drop')
  return ids.reshape(jnp.shape(leaf)), jnp.where(found > number, -1, firsts)


def _not_shared(leaf: Any) -> tuple[jax.Array, jax.Array]:
  del leaf
  return jnp.zeros([], jnp.uint16), jnp.zeros([], jnp.int32)


def _centroids(firsts: Any, params: Any) -> Any:
  """Replaces each shared leaf by its centroids, which are 0 for clusters without weights."""

  def of_leaf(firsts, param):
    if not firsts.ndim:
      return jnp.array(param)  # a copy: a step may donate both parameters and state
    return jnp.ravel(param).at[firsts].get(mode='fill', fill_value=0)

  return jax.tree.map(of_leaf, firsts, params)


# From weights to centroids and back


def _sums(ids: Any, firsts: Any, gradients: Any) -> Any:
  """Returns the gradients, with those of each shared leaf summed by cluster."""

  def of_leaf(ids, firsts, gradient):
    if not ids.ndim:
      return gradient
    wide = jnp.float32 if gradient.dtype.itemsize < 4 else gradient.dtype
    sums = _summed(jnp.ravel(ids), jnp.ravel(gradient).astype(wide), len(firsts))
    return sums.astype(gradient.dtype)

  return jax.tree.map(of_leaf, ids, firsts, gradients)


def _summed(ids: jax.Array, values: jax.Array, number: int) -> jax.Array:
  """Returns the sum of the values of each cluster.

  On CPU a scatter is quick and always adds in the same order. On accelerators the order varies, so
  that replicas would drift apart by rounding: each cluster is reduced separately there.
  """

  def scattered(ids, values):
    return jnp.zeros(number + 1, values.dtype).at[ids].add(values)[1:]

  def reduced(ids, values):
    each = jnp.arange(1, number + 1, dtype=ids.dtype)
    return jax.lax.map(lambda k: jnp.sum(jnp.where(ids == k, values, 0)), each)

  return jax.lax.platform_dependent(ids, values, cpu=scattered, default=reduced)


def _spread(ids: jax.Array, centroids: jax.Array) -> jax.Array:
  """Returns a leaf whose weights have the values of their clusters, and 0 outside of clusters."""
  return jnp.concatenate([jnp.zeros(1, centroids.dtype), centroids])[ids]


def _weight_updates(ids, firsts, centroids, moves, param):
  """Returns the update that moves each weight to the new centroid of its cluster."""
  if not ids.ndim:
    return moves
  with jax.numpy_dtype_promotion('standard'):
    # The second term is exactly zero, unless other transformations moved equal weights apart.
    update = _spread(ids, moves) + (_spread(ids, centroids) - param)
    update = jnp.where(firsts[0] < 0, jnp.nan, update)
    return jnp.where(ids > 0, update, -param).astype(jnp.result_type(moves, param))


def _of_centroids(extra_args: Mapping[str, Any], updates, ids, firsts) -> dict[str, Any]:
  """Returns the extra arguments for `inner`, whose parameters are the centroids.

  Args:
    extra_args: the extra arguments of the update, for whole leaves.
    updates: a tree in which `optax.masked` may have left holes.
    ids: the cluster of each weight, as in the state.
    firsts: the index of one weight of each cluster, as in the state.
  """
  found = dict(extra_args)

  def summed(gradients):
    return _sums(ids, firsts, copy_holes(updates, gradients))

  def spread(centroids):
    return jax.tree.map(lambda i, c: _spread(i, c) if i.ndim else c, ids, centroids)

  if (grad := extra_args.get('grad')) is not None:
    found['grad'] = lazily(summed, grad)
  if (grad_fn := extra_args.get('grad_fn')) is not None:  # used by SAM
    found['grad_fn'] = lambda centroids, *more: summed(grad_fn(spread(centroids), *more))
  if (value_fn := extra_args.get('value_fn')) is not None:  # used by line searches
    found['value_fn'] = lambda centroids, **more: value_fn(spread(centroids), **more)
  return found
