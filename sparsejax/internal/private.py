"""Names that Optax and JAX keep to themselves: here alone, each with what stands in for it."""

from typing import Any

try:
  from optax._src.base import NO_PARAMS_MSG
except ImportError:  # a later Optax may have moved it
  NO_PARAMS_MSG = 'this transformation needs the parameters: pass params= to update'

__all__ = [
  'NO_PARAMS_MSG',
  'forget_compiled_programs',
  'place_by_scheduler',
  'sum_over_address',
]


def forget_compiled_programs() -> None:
  """Has JAX look anew for its folder of compiled programs, for which it asks once."""
  try:
    from jax.experimental.compilation_cache import compilation_cache
  except ImportError:
    return
  compilation_cache.reset_cache()


def place_by_scheduler() -> tuple[Any, ...] | None:
  """Returns the first four arguments that `jax.distributed.initialize` finds out under a scheduler.

  None where a later JAX doesn't tell.
  """
  try:
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 300)
  except (ImportError, AttributeError, TypeError):
    return None
  return None if None in found[:3] else tuple(found)


def sum_over_address(address: str) -> bool:
  """Has the processes' CPUs exchange their sums over one address of this machine.

  By itself Gloo listens on whichever address the name of the machine has.

  Returns:
    Whether this JAX can be told so.
  """
  try:
    from jax._src import distributed, xla_bridge
    from jax.extend.backend import register_backend_factory
    from jaxlib import _jax  # ty: ignore[missing-module-member]

    make_client, make_sums = xla_bridge.make_cpu_client, _jax.make_gloo_tcp_collectives
    client = distributed.global_state.client
  except (ImportError, AttributeError):
    return False

  def make():
    return make_client(make_sums(distributed_client=client, hostname=address))

  register_backend_factory('cpu', make, priority=0, fail_quietly=False)
  return True
