"""Holding the zeros that are there: what was pruned stays pruned while the rest is trained on."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from sparsejax.internal.private import NO_PARAMS_MSG
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.mask_update import held_at_zero
from sparsejax.transforms.inner.masking import updated_within
from sparsejax.transforms.inner.running import begun_inside, running_inside


class HoldState(NamedTuple):
  """State of `hold`."""

  masks: optax.Params  # dtype=bool, of each chosen leaf's shape; shape=() for the others
  inner_state: optax.OptState


def hold(
  *,
  parameters: tree.Choice = 'kernels',
  exclude: str | Sequence[str] = (),
  inner: optax.GradientTransformation | None = None,
) -> optax.GradientTransformationExtraArgs:
  r"""Keeps the zeros that are there when training starts, as a pruned network that is trained on.

  .. math:: u'_i = u_i \text{ where } m_i \text{ else } -p_i, \quad m_i = (p_i \ne 0)

  with m read off the parameters that `init` is given, so that the pruned ones must be there by
  then. A network without a zero is trained as if `hold` were not there.

  Place it **last** in the chain, or around links that mix parameters (clipping by global norm,
  LAMB) as `inner`: the gradients and parameters that these see are zero outside the mask.

  Args:
    parameters: whose zeros are held, as of `prune`: 'kernels', 'all' (a bias that starts at zero
      would stay there), a function of (path, leaf), or several: 'kernels' and regular expressions.
    exclude: regular expressions (or one) over paths; each must match something.
    inner: a transformation to run inside the masks.

  Returns:
    A transformation whose state holds `masks`; read them with `optax.tree.get(state, 'masks')`.

  Raises:
    ValueError: at `init`, for a choice that matches nothing or an `inner` that searches along a
      line; at `update`, without `params`.

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
    updates, inner_state = updated_within(
      inner, masks, updates, state.inner_state, params, extra_args
    )
    return held_at_zero(updates, params, masks), HoldState(masks, inner_state)

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)
