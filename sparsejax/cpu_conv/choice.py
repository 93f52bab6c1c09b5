"""The choice between formulations: those that are fast on CPU, or XLA's own."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Generator, Hashable

import jax
from jax import lax

_plain_requested = contextvars.ContextVar('plain formulations', default=False)


def is_plain() -> bool:
  """Returns whether layers traced now use XLA's own convolution and pooling."""
  return _plain_requested.get() or jax.default_backend() != 'cpu'


@contextlib.contextmanager
def plain() -> Generator[None]:
  """Context manager in which layers are traced with XLA's own convolutions and pooling.

  On CPU the layers of this package otherwise use formulations that are faster there, but support
  reverse mode only and are slow on accelerators. Use this context to differentiate in forward mode
  (`jax.jvp`, `jax.jacfwd`), to export a network for other platforms or formats, or to compare
  timings. On accelerators it changes nothing. It applies to tracing: a function that `jax.jit`
  traced before it was entered keeps its formulations.

  Example:
    >>> with plain():
    ...   is_plain()
    True
  """
  token = _plain_requested.set(True)
  try:
    yield
  finally:
    _plain_requested.reset(token)


def select_by_platform(
  on_cpu: Callable[..., jax.Array],
  elsewhere: Callable[..., jax.Array],
  arrays: tuple[jax.Array, ...],
  rest: tuple[Hashable, ...],
) -> jax.Array:
  """Calls `on_cpu(*arrays, *rest)` in a program compiled for CPU, and `elsewhere` in any other.

  A program traced on CPU can be lowered for an accelerator, as `jax.export` does; it then has XLA's
  own formulations. A program for several platforms at once has both, and is slow on CPU.
  """
  branches = _branch(on_cpu, rest), _branch(elsewhere, rest)
  return lax.platform_dependent(*arrays, cpu=branches[0], default=branches[1])


@functools.cache
def _branch(
  function: Callable[..., jax.Array], rest: tuple[Hashable, ...]
) -> Callable[..., jax.Array]:
  """Binds the trailing arguments of a function.

  The result is cached: outside `jax.jit`, JAX compiles a new function object at every call.
  """
  return lambda *arrays: function(*arrays, *rest)


@contextlib.contextmanager
def reverse_mode() -> Generator[None]:
  """Context manager that makes JAX's refusal of forward mode name the remedy, `plain`.

  Raises:
    TypeError: under `jax.jvp`, `jax.jacfwd` and anything else that uses forward mode alone. Within
      `jax.jit` the refusal comes only when the program is lowered, with JAX's own message.
  """
  try:
    yield
  except TypeError as error:
    if 'forward-mode' not in str(error):
      raise
    raise TypeError(
      'on CPU convolutions and BatchNorm support reverse mode (jax.grad, jax.vjp) and forward over '
      'reverse mode (jax.hessian): for forward mode alone (jax.jvp, jax.jacfwd) trace the network '
      'within `with sparsejax.cpu_conv.choice.plain():`'
    ) from None
