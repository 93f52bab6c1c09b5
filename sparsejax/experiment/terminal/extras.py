"""A command that needs more than is installed says so in one line."""

import sys
from collections.abc import Callable, Sequence

from sparsejax.experiment.terminal.say import complain, show_traceback
from sparsejax.internal import needs

MISSING = 2  # the exit status


def explained(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
  """Runs a command and returns its exit status; if a package is missing, says how to install it.

  Args:
    main: the command, which imports what it needs.
    argv: its command line.
  """
  sys.excepthook = show_traceback
  try:
    return main(argv)
  except ModuleNotFoundError as error:
    if not needs.is_third_party(error):
      raise
    complain(needs.missing(error))
    return MISSING
