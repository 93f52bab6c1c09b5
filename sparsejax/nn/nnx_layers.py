"""Layers with a posterior in place of every weight, for networks of Flax NNX.

They mirror `variational`, with the same leaves under the same names, so that everything in
`posterior`, and the KL in a chain, takes `nnx.state(model, nnx.Param)` as it is.
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
  """A linear map whose leaves are parameters under the names that the family gives them.

  Args:
    shape: the shape of the kernel.
    family: a name in `posterior.FAMILIES`, or your own family.
    groups: what has its own scale in a family with groups, 'inputs' or 'outputs'.
    rngs: `params` for the initial values, `noise` for the samples.
    use_bias: whether the layer has a bias.
    dtype: the dtype of the products.
    kernel_init: the initialiser of the means, if the family has no rule of its own.
    **settings: the settings of `nn.of` other than groups, such as `log_variance`.
  """

  def __init__(
    self,
    shape: tuple[int, ...],
    family: str | Family,
    groups: str,
    rngs: nnx.Rngs,
    *,
    use_bias: bool = True,
    dtype: Any = jnp.float32,
    kernel_init: Callable = uniform_fan_in,
    **settings: Any,
  ):
    if groups not in GROUPS:
      raise ValueError(f'groups={groups!r} must be {" or ".join(GROUPS)}')
    found = lookup('family', family, FAMILIES) if isinstance(family, str) else family
    sampling = variational.make_sampling(found, **settings)
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
  """`nnx.Linear` with a posterior; after `model.eval()` it uses the posterior's means.

  Args:
    in_features: the number of inputs.
    out_features: the number of outputs.
    family: a name in `posterior.FAMILIES`, or your own family.
    groups: what has its own scale in a family with groups, 'inputs' (as in the paper) or 'outputs'.
    rngs: `params` for the initial values, `noise` for the samples.
    **settings: `use_bias`; the `dtype` of the products; `kernel_init`, the initialiser of the
      means, if the family has no rule of its own; and the settings of `nn.of` other than groups,
      such as `log_variance`.

  Raises:
    ValueError: the family or the groups are unknown.

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
    rngs: nnx.Rngs,
    **settings: Any,
  ):
    super().__init__((in_features, out_features), family, groups, rngs, **settings)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.sample(x, jnp.dot)


class Conv(_Layer):
  """`nnx.Conv` for images, with a posterior; after `model.eval()` it uses the posterior's means.

  Args:
    in_features: the number of input channels.
    out_features: the number of filters.
    kernel_size: height and width.
    strides: the steps between positions.
    padding: a pair for the height and one for the width.
    feature_group_count: the number of parts that the channels are split into.
    family: as for `Linear`.
    groups: as for `Linear`; the paper uses 'outputs' here.
    rngs: as for `Linear`.
    **settings: as for `Linear`.

  Raises:
    ValueError: the family is unknown, or a convolution in parts cannot have these groups.
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
    rngs: nnx.Rngs,
    **settings: Any,
  ):
    variational.check_groups(groups, feature_group_count)
    shape = (*kernel_size, in_features // feature_group_count, out_features)
    super().__init__(shape, family, groups, rngs, **settings)
    self.linear = partial(variational.convolved, strides, padding, feature_group_count)

  def __call__(self, x: jax.Array) -> jax.Array:
    return self.sample(x, self.linear)
