"""Training shared weights: a cluster is one parameter; its gradient sums those of its weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import optax

from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.shipping.sharing import MOST_BITS, whole_bits
from sparsejax.sparsity.leaves import tree
from sparsejax.transforms.inner.masking import lazily, with_holes_of
from sparsejax.transforms.inner.running import running_inside


class ShareWeightsState(NamedTuple):
  """State of `share_weights`."""

  ids: optax.Params  # dtype=uint16, of each shared leaf's shape: its cluster, 0 where it is zero
  firsts: optax.Params  # dtype=int32, shape=(2**bits,): a weight of each cluster, by place
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

  The clusters are read off the parameters that `init` is given, which `shipping.share` makes: the
  weights of a leaf that are equal form a cluster and move together from then on. Zeros belong to no
  cluster and stay zero.

  Give the optimizer as `inner`. It then trains the centroids themselves, a vector of 2^bits for
  each leaf, and keeps its slots for these instead of for each weight. Without `inner`, place this
  **last** in the chain, after an optimizer that is linear in the gradient (SGD, momentum), because
  it sums the updates that reach it. Because the gradient is the sum and not the mean, SGD needs a
  learning rate that falls with the number of weights in a cluster; Adam does not.

  Args:
    bits: a leaf may have at most 2^bits clusters; 1 to 8.
    parameters: which leaves are shared, as of `prune`: 'kernels', 'all', a function of (path,
      leaf), or several.
    exclude: regular expressions (or one) over paths; each must match something.
    inner: a transformation to run on the centroids.

  Returns:
    A transformation whose state holds `ids`; read them with `optax.tree.get(state, 'ids')`.

  Raises:
    ValueError: at once, if bits are not 1 to 8; at `init`, if a leaf has more values than clusters
      or the choice of parameters matches nothing; at `update`, without `params`. A traced `init`
      cannot see values: the updates of a leaf that has too many are then NaN.

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
      _clusters(path, leaf, number) if is_chosen and jnp.ndim(leaf) else _none(leaf)
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
    updates = jax.tree.map(_towards, ids, firsts, centroids, moves, params)
    return updates, ShareWeightsState(ids, firsts, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


# The clusters


def _clusters(path: str, leaf: Any, number: int) -> tuple[jax.Array, jax.Array]:
  """The cluster of each weight, 0 where it is zero, and the place of one weight of each cluster."""
  flat = jnp.ravel(leaf)
  order = jnp.argsort(flat)
  ordered = flat[order]
  differs = jnp.concatenate([jnp.ones(min(1, flat.size), bool), ordered[1:] != ordered[:-1]])
  begins = differs & (ordered != 0)
  ranks = jnp.cumsum(begins, dtype=jnp.int32)
  found = ranks[-1] if flat.size else jnp.int32(0)
  if not isinstance(found, jax.core.Tracer) and found > number:
    raise ValueError(
      f"'{path}' has {found} values that are not zero and must have at most {number}: share its "
      'weights first, with sparsejax.shipping.share, or raise bits= if these are under 8'
    )
  ids = jnp.zeros(flat.size, jnp.uint16)
  ids = ids.at[order].set(jnp.where(ordered != 0, ranks, 0).astype(jnp.uint16))
  firsts = jnp.full(number, flat.size, jnp.int32)
  firsts = firsts.at[jnp.where(begins, ranks - 1, number)].set(order, mode='drop')
  return ids.reshape(jnp.shape(leaf)), jnp.where(found > number, -1, firsts)


def _none(leaf: Any) -> tuple[jax.Array, jax.Array]:
  del leaf
  return jnp.zeros([], jnp.uint16), jnp.zeros([], jnp.int32)


def _centroids(firsts: Any, params: Any) -> Any:
  """The parameters with each shared leaf as its centroids: 0 for clusters that have no weight."""

  def of_leaf(firsts, param):
    if not firsts.ndim:
      return jnp.array(param)  # a copy: a step may donate the parameters and what is kept of them
    return jnp.ravel(param).at[firsts].get(mode='fill', fill_value=0)

  return jax.tree.map(of_leaf, firsts, params)


# From weights to centroids and back


def _sums(ids: Any, firsts: Any, gradients: Any) -> Any:
  """The gradients with each shared leaf summed by cluster."""

  def of_leaf(ids, firsts, gradient):
    if not ids.ndim:
      return gradient
    wide = jnp.float32 if gradient.dtype.itemsize < 4 else gradient.dtype
    sums = _summed(jnp.ravel(ids), jnp.ravel(gradient).astype(wide), len(firsts))
    return sums.astype(gradient.dtype)

  return jax.tree.map(of_leaf, ids, firsts, gradients)


def _summed(ids: jax.Array, values: jax.Array, number: int) -> jax.Array:
  """The sum of the values of each cluster.

  On CPU a scatter is quick and always adds in the same order. On accelerators the order varies, and
  replicas would drift apart by a bit, so each cluster is reduced by itself there.
  """

  def scattered(ids, values):
    return jnp.zeros(number + 1, values.dtype).at[ids].add(values)[1:]

  def reduced(ids, values):
    each = jnp.arange(1, number + 1, dtype=ids.dtype)
    return jax.lax.map(lambda k: jnp.sum(jnp.where(ids == k, values, 0)), each)

  return jax.lax.platform_dependent(ids, values, cpu=scattered, default=reduced)


def _spread(ids: jax.Array, centroids: jax.Array) -> jax.Array:
  """A leaf of which each weight has the value of its cluster, and 0 outside of them."""
  return jnp.concatenate([jnp.zeros(1, centroids.dtype), centroids])[ids]


def _towards(ids, firsts, centroids, moves, param):
  """The update that brings each weight to where its cluster went."""
  if not ids.ndim:
    return moves
  with jax.numpy_dtype_promotion('standard'):
    # The second term is exactly zero, unless others moved weights of one cluster apart.
    update = _spread(ids, moves) + (_spread(ids, centroids) - param)
    update = jnp.where(firsts[0] < 0, jnp.nan, update)
    return jnp.where(ids > 0, update, -param).astype(jnp.result_type(moves, param))


def _of_centroids(extra_args: Mapping[str, Any], updates, ids, firsts) -> dict[str, Any]:
  """The extra arguments for inner links, to which the centroids are the parameters."""
  found = dict(extra_args)

  def summed(gradients):
    return _sums(ids, firsts, with_holes_of(updates, gradients))

  def spread(centroids):
    return jax.tree.map(lambda i, c: _spread(i, c) if i.ndim else c, ids, centroids)

  if (grad := extra_args.get('grad')) is not None:
    found['grad'] = lazily(summed, grad)
  if (grad_fn := extra_args.get('grad_fn')) is not None:  # of SAM
    found['grad_fn'] = lambda centroids, *more: summed(grad_fn(spread(centroids), *more))
  if (value_fn := extra_args.get('value_fn')) is not None:  # of searches along a line
    found['value_fn'] = lambda centroids, **more: value_fn(spread(centroids), **more)
  return found
