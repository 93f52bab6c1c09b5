"""Missing packages, reported in one line that says which extra installs them."""

import contextlib
from collections.abc import Generator


def missing(error: ModuleNotFoundError, extra: str = 'experiments') -> str:
  """Returns the line that says how to install a missing package.

  Args:
    error: the error that its import raised.
    extra: the extra that installs it.

  Example:
    >>> missing(ModuleNotFoundError(name='flax.linen'))
    "the package flax is not installed: pip install 'sparsejax[experiments]'"
  """
  package = (error.name or '').partition('.')[0]
  return f"the package {package} is not installed: pip install 'sparsejax[{extra}]'"


def is_third_party(error: ModuleNotFoundError) -> bool:
  """Returns whether the missing module belongs to another package, not to this one."""
  return error.name is not None and error.name.partition('.')[0] != 'sparsejax'


@contextlib.contextmanager
def needed(extra: str) -> Generator[None]:
  """Context manager that makes the error of a failed import say which extra installs the package.

  Raises:
    ModuleNotFoundError: a package is not installed.
  """
  try:
    yield
  except ModuleNotFoundError as error:
    if not is_third_party(error):
      raise
    raise ModuleNotFoundError(missing(error, extra), name=error.name) from None
