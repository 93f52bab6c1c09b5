"""Which formulations the layers are computed by: on CPU those fast there, or XLA's own."""

import contextlib
import contextvars
from collections.abc import Generator

import jax

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
