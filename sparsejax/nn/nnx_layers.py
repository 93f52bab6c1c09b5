"""Layers with a posterior in the place of every weight, for networks of Flax NNX.

They are those of `variational`, with the same leaves under the same names, so that everything in
`posterior` and the KL of the chain take `nnx.state(model, nnx.Param)` as it is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sparsejax.cpu_conv.convolution import Padding
from sparsejax.internal.lookup import lookup
from sparsejax.nn import variational
from sparsejax.nn.deterministic import uniform_fan_in
from sparsejax.posterior import FAMILIES, Family
from sparsejax.posterior.families.family import GROUPS


class _Layer(nnx.Module):
  """A linear map, whose leaves are parameters by the names that the family gives them."""

  def __init__(self, family, shape, groups, use_bias, dtype, kernel_init, rngs, settings):
    if groups not in GROUPS:
      raise ValueError(f'groups={groups!r} must be {" or ".join(GROUPS)}')
    found = lookup('family', family, FAMILIES) if isinstance(family, str) else family
    sampling = variational.sampling_of(found, **settings)
    self.family, self.draw, self.dtype = sampling.family, sampling.draw, dtype
    self.deterministic = False
    self.noise = rngs['noise'].fork()
    leaves = variational.starts(sampling, shape, groups, kernel_init, use_bias=use_bias)
    self.leaves = tuple(leaves)
    for name, (init, of_shape) in leaves.items():
      setattr(self, name, nnx.Param(init(rngs.params(), of_shape)))

  def sample(self, x: jax.Array, linear: Callable) -> jax.Array:
    sampling = variational.Sampling(self.family, self.draw, None, 0.0)
    leaves = {name: getattr(self, name)[...] for name in self.leaves}

    def noise(shape):
      return variational.standard_normal(self.noise(), shape)

    given = None if self.deterministic else noise
    return variational.outputs(sampling, leaves, x, linear, self.dtype, given)


class Linear(_Layer):
  """As `nnx.Linear`, with a posterior; after `model.eval()` it has the posterior's means.

  Args:
    in_features: the number of inputs.
    out_features: the number of outputs.
    family: a name of `posterior.FAMILIES`, or a family of one's own.
    groups: what has a scale in a family with groups, 'inputs' (the paper's) or 'outputs'.
    use_bias: whether there is a bias.
    dtype: of the products.
    kernel_init: of the means, where the family has no rule of its own.
    rngs: `params` for the start, `noise` for the samples.
    **settings: those of `nn.of` that are no groups, such as `log_variance`.

  Raises:
    ValueError: an unknown family or groups.

  Example:
    >>> for family in FAMILIES.values():
    ...   layer = Linear(4, 3, family=family, use_bias=False, rngs=nnx.Rngs(0))
    ...   print(len(nnx.state(layer, nnx.Param)), layer(jnp.ones((2, 4))).shape)
    2 (2, 3)
    4 (2, 3)
    10 (2, 3)
  """

  def __init__(
    self,
    in_features: int,
    out_features: int,
    *,
    family: str | Family,
    groups: str = 'inputs',
    use_bias: bool = True,
    dtype: Any = jnp.float32,
    kernel_init: Callable = uniform_fan_in,
    rngs: nnx.Rngs,
    **settings: Any,
  ):
    shape = (in_features, out_features)
    super().__init__(family, shape, groups, use_bias, dtype, kernel_init, rngs, settings)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.sample(x, jnp.dot)


class Conv(_Layer):
  """As `nnx.Conv` of images, with a posterior; after `model.eval()` it has the posterior's means.

  Args:
    in_features: the number of input channels.
    out_features: the number of filters.
    kernel_size: height and width.
    strides: between positions.
    padding: a pair for height and one for width.
    feature_group_count: into how many parts the channels fall.
    family: as of `Linear`.
    groups: as of `Linear`; the paper's are 'outputs' here.
    use_bias: whether there is a bias.
    dtype: of the products.
    kernel_init: of the means.
    rngs: `params` for the start, `noise` for the samples.
    **settings: as of `Linear`.

  Raises:
    ValueError: an unknown family, or groups that a convolution in parts has not.
  """

  def __init__(
    self,
    in_features: int,
    out_features: int,
    kernel_size: tuple[int, int],
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = ((1, 1), (1, 1)),
    feature_group_count: int = 1,
    family: str | Family,
    groups: str = 'outputs',
    use_bias: bool = True,
    dtype: Any = jnp.float32,
    kernel_init: Callable = uniform_fan_in,
    rngs: nnx.Rngs,
    **settings: Any,
  ):
    variational.check_groups(groups, feature_group_count)
    shape = (*kernel_size, in_features // feature_group_count, out_features)
    super().__init__(family, shape, groups, use_bias, dtype, kernel_init, rngs, settings)
    self.linear = partial(variational.convolved, strides, padding, feature_group_count)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.sample(x, self.linear)
