"""Which formulations the layers are computed by: on CPU those fast there, or XLA's own."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator, Hashable

import jax
from jax import lax

_asked_for = contextvars.ContextVar('plain formulations', default=False)


def is_plain() -> bool:
  """Returns whether layers traced now use XLA's own convolution and pooling."""
  return _asked_for.get() or jax.default_backend() != 'cpu'


@contextlib.contextmanager
def plain() -> Generator[None]:
  """Gives layers traced within the block the formulations that an accelerator gets.

  What `jax.jit` traced before keeps its own.

  Example:
    >>> with plain():
    ...   is_plain()
    True
  """
  token = _asked_for.set(True)
  try:
    yield
  finally:
    _asked_for.reset(token)


def by_platform(
  on_cpu: Callable[..., jax.Array],
  elsewhere: Callable[..., jax.Array],
  arrays: tuple[jax.Array, ...],
  rest: tuple[Hashable, ...],
) -> jax.Array:
  """Returns the one or the other of (*arrays, *rest), as the program is compiled for CPU or not.

  A program traced on CPU can be lowered for an accelerator, as `jax.export` does it: this has XLA's
  own formulations then. One for several platforms at once has both, and is slow on CPU.
  """
  branches = _branch(on_cpu, rest), _branch(elsewhere, rest)
  return lax.platform_dependent(*arrays, cpu=branches[0], default=branches[1])


@functools.cache
def _branch(function, rest):
  """One and the same for the same, or without jit each call would be compiled anew."""
  return lambda *arrays: function(*arrays, *rest)


@contextlib.contextmanager
def reverse_mode() -> Generator[None]:
  """Names `plain` where JAX refuses the forward mode of what is called within the block.

  Raises:
    TypeError: under `jax.jvp`, `jax.jacfwd` and whatever else computes in forward mode alone.
      Within `jax.jit` that is found when the program is lowered, and JAX's own line comes.
  """
  try:
    yield
  except TypeError as error:
    if 'forward-mode' not in str(error):
      raise
    raise TypeError(
      'on CPU convolutions and BatchNorm have gradients in reverse mode (jax.grad, jax.vjp) and of '
      'these in forward mode (jax.hessian): for forward mode alone (jax.jvp, jax.jacfwd) trace the '
      'network within `with sparsejax.cpu_conv.choice.plain():`'
    ) from None
