"""A family of posteriors as one object: everything in which families differ.

A layer is a dict of leaves: `kernel`, the means, of shape (..., inputs, outputs); usually `bias`;
and the leaves that its family adds. A family consists of pure functions of these leaves.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sparsejax.posterior.families.kl import EPSILON

Leaves = Mapping[str, jax.Array]  # the leaves of one layer, by name
Linear = Callable[[jax.Array, jax.Array], jax.Array]  # (x, kernel) -> y, without a bias
Noise = Callable[[tuple[int, ...]], jax.Array]  # shape -> independent draws of N(0, 1)
VARIANCE, MEAN = '_log_variance', '_mean'  # endings of the names of a family's own leaves
MEANS = ('kernel', 'bias')
PER = ('weight', 'bias', 'group', 'layer')
GROUPS = ('inputs', 'outputs')


class Moments(NamedTuple):
  """Mean and variance, each shaped like the leaf."""

  mean: jax.Array
  variance: jax.Array


class Leaf(NamedTuple):
  """A leaf that a layer has in addition to its kernel and its bias.

  Attributes:
    per: what each entry belongs to, one of `PER`: a weight, a bias, a group, or the whole layer.
    start: the initial mean of its entries; None stands for the setting `log_variance`.
    spread: the initial standard deviation of its entries.
  """

  per: str
  start: float | None = None
  spread: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
  """A family of posteriors.

  Attributes:
    leaves: the leaves of a layer other than `kernel` and `bias`, by name. A name ends in
      `_log_variance` or `_mean`. A layer's family is found by these names, so no other family may
      have the same set.
    kl: leaves -> KL(posterior || prior) of the layer, in nats.
    log_alpha: leaves -> how noisy each weight or group is; it broadcasts against the kernel, and
      has shape (inputs, 1) or (outputs,) if it belongs to groups.
    moments: leaves -> the moments of the kernel and of the bias, if the layer has one, by name.
    draw: (leaves, x, linear, noise) -> outputs for inputs x of shape (examples, ..., inputs), the
      bias included. `linear(x, kernel)` is the layer's map, `noise(shape)` draws from N(0, 1).
    threshold: the default threshold: weights or groups with log alpha at or above it are removed.
    log_variance: the default initial log-variances.
    bound: log alpha is clipped to [-bound, bound]; None leaves it unclipped.
    masks: whether `draw` takes `threshold=`, at or above which a mean counts as 0 in training.
    starts_normal: whether the kernels of dense layers start from N(0, 1 / inputs) instead of by the
      network's own rule.
    settings: further keyword arguments of `draw` that a config may set, with their defaults.
  """

  leaves: Mapping[str, Leaf]
  kl: Callable[[Leaves], jax.Array]
  log_alpha: Callable[[Leaves], jax.Array]
  moments: Callable[[Leaves], dict[str, Moments]]
  draw: Callable[..., jax.Array]
  threshold: float
  log_variance: float = -9.0
  bound: float | None = None
  masks: bool = False
  starts_normal: bool = False
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def has_groups(self) -> bool:
    """Whether the family removes whole inputs or outputs, rather than single weights."""
    return any(leaf.per == 'group' for leaf in self.leaves.values())

  def names(self, *, bias: bool) -> set[str]:
    """Returns the names of all leaves of a layer, with or without a bias."""
    return set(self.shapes((1, 1), bias=bias))

  def shapes(
    self, kernel: tuple[int, ...], groups: str = 'outputs', *, bias: bool
  ) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all leaves of a layer, by name.

    Args:
      kernel: the shape of the kernel.
      groups: what a group is, 'inputs' or 'outputs'.
      bias: whether the layer has one.
    """
    group_shape = (kernel[-2], 1) if groups == 'inputs' else kernel[-1:]
    per = {
      'weight': kernel,
      'bias': kernel[-1:],
      'group': group_shape,
      'layer': (1,) * len(group_shape),
    }
    own = {name: per[leaf.per] for name, leaf in self.leaves.items() if bias or leaf.per != 'bias'}
    return {'kernel': kernel} | ({'bias': kernel[-1:]} if bias else {}) | own


def broadcast_groups(values: jax.Array, kernel: jax.Array) -> jax.Array:
  """Returns the groups' values with as many axes as the kernel, to broadcast against it."""
  return values.reshape((1,) * (kernel.ndim - values.ndim) + values.shape)


def gaussian(mean: jax.Array, variance: jax.Array, noise: Noise) -> jax.Array:
  """Returns a draw from each of the Gaussians with these means and variances."""
  # At a variance of 0 the root's gradient would be infinite, and a product that XLA reorders may
  # fall below 0 by a rounding error.
  deviation = jnp.sqrt(jnp.maximum(variance, 0) + jnp.asarray(EPSILON, variance.dtype))
  return mean + deviation * noise(mean.shape).astype(mean.dtype)


def along(bias: jax.Array, y: jax.Array) -> jax.Array:
  """Returns a vector over the outputs in the shape in which it is added to y."""
  return bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


def check(family: Any, others: Mapping[str, Family]) -> None:
  """Raises a ValueError that says what is wrong with a user's own family.

  Its functions are traced over dense layers of two inputs and three outputs; nothing is computed.

  Args:
    family: the candidate.
    others: the existing families, by name.
  """
  if not isinstance(family, Family):
    raise ValueError(f'it is of type {type(family).__name__}: it must be a posterior.Family')
  for name, leaf in family.leaves.items():
    if not name.endswith((VARIANCE, MEAN)):
      raise ValueError(f"its leaf '{name}' must have a name that ends in {VARIANCE} or {MEAN}")
    if not isinstance(leaf, Leaf) or leaf.per not in PER:
      raise ValueError(f"its leaf '{name}' must be a posterior.Leaf, per one of {', '.join(PER)}")
  if not any(n.endswith(VARIANCE) and leaf.per != 'bias' for n, leaf in family.leaves.items()):
    raise ValueError(f"it must have a leaf whose name ends in {VARIANCE}, other than the bias's")
  for bias in (False, True):
    names = family.names(bias=bias)
    for other, known in others.items():
      if known.names(bias=bias) == names:
        raise ValueError(
          f"its leaves have the same names as those of '{other}', by which a layer's family is "
          f'found: they must differ from {", ".join(sorted(names))}'
        )
    for groups in GROUPS if family.has_groups else GROUPS[1:]:
      _check_functions(family, groups, bias=bias)


def _check_functions(family: Family, groups: str, *, bias: bool) -> None:
  def spec(shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  def draw(leaves, x):
    mask = {'threshold': family.threshold} if family.masks else {}
    return family.draw(leaves, x, jnp.dot, jnp.zeros, **mask, **family.settings)

  layer = {n: spec(shape) for n, shape in family.shapes((2, 3), groups, bias=bias).items()}
  group_values = spec((2, 1)) if groups == 'inputs' else spec((3,))
  for name, function, arguments, expected in (
    ('kl', family.kl, (), spec(())),
    ('log_alpha', family.log_alpha, (), group_values if family.has_groups else layer['kernel']),
    ('moments', family.moments, (), {n: Moments(x, x) for n, x in layer.items() if n in MEANS}),
    ('draw', draw, (spec((4, 2)),), spec((4, 3))),
  ):
    try:
      found = jax.eval_shape(function, layer, *arguments)
    except Exception as error:  # a user's own code may raise anything
      reason = ' '.join(str(error).split())
      raise ValueError(f'its {name} raises {type(error).__name__}: {reason}') from error
    if not _are_alike(found, expected):
      shapes = {n: x.shape for n, x in layer.items()}
      raise ValueError(
        f'its {name} must return {_shown(expected)}, not {_shown(found)}, for leaves of {shapes}'
      )


def _are_alike(found, expected) -> bool:
  same = jax.tree.structure(found) == jax.tree.structure(expected)
  return same and jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, expected)


def _shown(tree) -> str:
  return str(jax.tree.map(jnp.shape, tree))
