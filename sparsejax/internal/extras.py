"""What a command needs beyond the library's core, said in one line where it is not installed."""

import sys
from collections.abc import Callable, Sequence

from sparsejax.experiment.terminal.say import complain, show_traceback

MISSING = 2  # the exit status


def explained(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
  """Returns what a command returns; where a package is missing, says how to install it.

  Args:
    main: the command, which imports what it needs.
    argv: its command line.
  """
  sys.excepthook = show_traceback
  try:
    return main(argv)
  except ModuleNotFoundError as error:
    if error.name is None or error.name.partition('.')[0] == 'sparsejax':
      raise
    complain(missing(error))
    return MISSING


def missing(error: ModuleNotFoundError) -> str:
  """Returns what to do about a package that is not installed.

  Example:
    >>> missing(ModuleNotFoundError(name='flax.linen'))
    "the package flax is not installed: pip install 'sparsejax[experiments]'"
  """
  package = (error.name or '').partition('.')[0]
  return f"the package {package} is not installed: pip install 'sparsejax[experiments]'"
