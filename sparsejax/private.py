"""Names that Optax and JAX keep to themselves: here alone, each with what stands in for it."""

try:
  from optax._src.base import NO_PARAMS_MSG
except ImportError:  # a later Optax may have moved it
  NO_PARAMS_MSG = 'this transformation needs the parameters: pass params= to update'

__all__ = ['NO_PARAMS_MSG', 'forget_compiled_programs']


def forget_compiled_programs() -> None:
  """Has JAX look anew for its folder of compiled programs, for which it asks once."""
  try:
    from jax.experimental.compilation_cache import compilation_cache
  except ImportError:
    return
  compilation_cache.reset_cache()
