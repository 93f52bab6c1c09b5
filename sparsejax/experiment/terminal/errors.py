"""The errors that end a command in a known way, and one line for any other."""


class UsageError(ValueError):
  """The request is impossible; the message is one line with field, value and what it must be."""


class BusyError(UsageError):
  """Another process is writing where this one should."""


class NonFiniteLossError(RuntimeError):
  """The loss became infinite or NaN; earlier checkpoints are kept."""


class UnreadableError(RuntimeError):
  """The disk gave an error, which says nothing about the files."""


class TerminatedError(RuntimeError):
  """A signal came and the state was saved; the last argument is the signal's number."""

  @property
  def signal(self) -> int:
    return self.args[-1]

  def __str__(self):
    return str(self.args[0])


class PausedError(RuntimeError):
  """The watcher of the run stopped it after an evaluation; the state was saved."""


def in_one_line(error: BaseException) -> str:
  """Returns an error's message in one line, or its type if the message is empty."""
  return ' '.join(str(error).split()) or type(error).__name__
