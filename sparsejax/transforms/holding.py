"""Fine-tuning a pruned network: weights that are zero stay zero while the others are trained."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.mask_update import held_at_zero
from sparsejax.transforms.inner.masking import update_masked
from sparsejax.transforms.inner.running import begun_inside, running_inside


class HoldState(NamedTuple):
  """State of `hold`."""

  masks: optax.Params  # dtype=bool, shape of the leaf where chosen, () elsewhere
  inner_state: optax.OptState


def hold(
  *,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Keeps the weights that are zero at `init` at zero, to fine-tune a pruned network.

  .. math:: u'_i = u_i \text{ where } m_i \text{ else } -p_i, \quad m_i = (p_i \ne 0)

  with the masks m computed once, from the parameters that `init` is given: give it the pruned ones.
  If none of them is zero, `hold` changes nothing.

  Place it **last** in the chain. Give transformations that combine parameters (clipping by global
  norm, LAMB) as `inner`, where gradients and parameters are zero outside the masks.

  Args:
    parameters: the leaves whose zeros are kept, as in `prune`: 'kernels', 'all' (a bias that starts
      at zero would stay at zero), a function of (path, leaf), or several: 'kernels' and regular
      expressions.
    exclude: regular expressions (or one) over paths; each must match a leaf.
    inner: a transformation to run inside the masks.

  Returns:
    A transformation whose state holds `masks`; read them with `optax.tree.get(state, 'masks')`.

  Raises:
    ValueError: at `init`, if no leaf is chosen or `inner` has a line search; at `update`, if
      `params` are missing.

  Example:
    >>> chain = optax.chain(optax.sgd(0.5), hold())
    >>> params = {'kernel': jnp.array([[0.0, -3.0]]), 'bias': jnp.zeros(2)}
    >>> grad = jax.tree.map(jnp.ones_like, params)
    >>> updates, _ = chain.update(grad, chain.init(params), params)
    >>> optax.apply_updates(params, updates)
    {'bias': Array([-0.5, -0.5], dtype=float32), 'kernel': Array([[ 0. , -3.5]], dtype=float32)}

  References:
    Han et al. 2015, https://arxiv.org/abs/1506.02626
  """
  inner = running_inside(inner)

  def init_fn(params):
    chosen = tree.choose(params, parameters, exclude)
    masks = jax.tree.map(lambda c, p: p != 0 if c else jnp.ones((), bool), chosen, params)
    return HoldState(masks, begun_inside(inner, params))

  def update_fn(updates, state, params=None, **extra_args):
    if params is None:
      raise ValueError(NO_PARAMS_MSG)
    masks = state.masks
    updates, inner_state = update_masked(
      inner, masks, updates, state.inner_state, params, extra_args
    )
    return held_at_zero(updates, params, masks), HoldState(masks, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
