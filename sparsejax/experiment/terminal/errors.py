"""The errors that end the command in a known way, and how any other is told."""


class UsageError(ValueError):
  """What the person asked for can't be: one line naming field, value and what is allowed."""


class BusyError(UsageError):
  """Another process is writing where this one would."""


class NonFiniteLossError(RuntimeError):
  """Training left the finite numbers; the checkpoints before it stay."""


class UnreadableError(RuntimeError):
  """The disk gave an error, which says nothing about what lies there."""


class TerminatedError(RuntimeError):
  """A signal came; the state is saved. Its number is the last argument."""

  @property
  def signal(self) -> int:
    return self.args[-1]

  def __str__(self):
    return str(self.args[0])


class PausedError(RuntimeError):
  """Whoever watches the run stopped it after an evaluation; the state is saved."""


def in_one_line(error: BaseException) -> str:
  """Returns an error's message in one line, its type where it says nothing."""
  return ' '.join(str(error).split()) or type(error).__name__
