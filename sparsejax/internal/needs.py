"""What the core lacks without its extras, said in the line that tells how to install it."""

import contextlib
from collections.abc import Generator


def missing(error: ModuleNotFoundError, extra: str = 'experiments') -> str:
  """Returns what to do about a package that is not installed.

  Args:
    error: that its import raised.
    extra: what installs it.

  Example:
    >>> missing(ModuleNotFoundError(name='flax.linen'))
    "the package flax is not installed: pip install 'sparsejax[experiments]'"
  """
  package = (error.name or '').partition('.')[0]
  return f"the package {package} is not installed: pip install 'sparsejax[{extra}]'"


def is_of_an_extra(error: ModuleNotFoundError) -> bool:
  """Whether the package that is missing is another's, and not a module of this one."""
  return error.name is not None and error.name.partition('.')[0] != 'sparsejax'


@contextlib.contextmanager
def needed(extra: str) -> Generator[None]:
  """Has an import in the block that finds no package say which extra installs it.

  Raises:
    ModuleNotFoundError: a package is not installed.
  """
  try:
    yield
  except ModuleNotFoundError as error:
    if not is_of_an_extra(error):
      raise
    raise ModuleNotFoundError(missing(error, extra), name=error.name) from None
