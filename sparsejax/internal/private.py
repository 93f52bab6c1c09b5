"""The only uses of private names of Optax and JAX, each with a fallback for when it is gone."""

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
  """Makes JAX look up its folder of compiled programs again; by itself it does so only once."""
  try:
    from jax.experimental.compilation_cache import compilation_cache
  except ImportError:
    return
  compilation_cache.reset_cache()


def place_by_scheduler() -> tuple[Any, ...] | None:
  """Returns the first four arguments that `jax.distributed.initialize` finds out under a scheduler.

  The result is None if a later JAX does not have it.
  """
  try:
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 300)
  except (ImportError, AttributeError, TypeError):
    return None
  return None if None in found[:3] else tuple(found)


def sum_over_address(address: str) -> bool:
  """Makes the processes' CPUs exchange their sums over one address of this machine.

  By default Gloo listens on whichever address the machine's name resolves to.

  Returns:
    Whether this JAX lets the address be chosen.
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
