"""The deterministic network that a posterior is deployed as."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from sparsejax import posterior
from sparsejax.models.dead_units import remove_dead


@dataclasses.dataclass(frozen=True)
class Deployment:
  """Turns the trained network into the one that is evaluated, counted and delivered.

  Attributes:
    model: the network with deterministic layers, which a deterministic network is itself.
    image_shape: (height, width, channels).
    thresholds: the thresholds by layer, as `posterior.deploy` takes them; None for a deterministic
      network, which is its own deployment.
  """

  model: Any
  image_shape: tuple[int, ...]
  thresholds: Mapping[str, float] | None = None

  @property
  def is_variational(self) -> bool:
    return self.thresholds is not None

  def __call__(self, params: Any, batch_stats: Any) -> Any:
    """Returns the deterministic parameters, without weights that have no effect. Jittable."""
    if self.thresholds is None:
      return params
    params = posterior.deploy(params, self.thresholds)
    variables = {'params': params, 'batch_stats': batch_stats}
    # A removed unit also loses BatchNorm's constant, since its group's threshold decides on both.
    cleaned = remove_dead(self.model, variables, self.image_shape, drop_constants=True, check=False)
    return cleaned['params']

  @functools.cached_property
  def jitted(self) -> Callable[[Any, Any], Any]:
    """The same as a compiled function; a network that is its own deployment is not copied."""
    return jax.jit(self.__call__) if self.is_variational else self
