"""Logged warnings, one line each, like all other output."""

from absl import logging

from sparsejax.experiment.terminal.say import printable


class _Lines(logging.PythonFormatter):
  """absl's format, in which no quoted value can begin a new line."""

  def format(self, record):
    return printable(super().format(record))


def show_warnings() -> None:
  """Shows warnings, and nothing less severe."""
  logging.set_verbosity(logging.WARNING)
  logging.get_absl_handler().setFormatter(_Lines())
