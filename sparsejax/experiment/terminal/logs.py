"""Warnings that are logged: a line each, as whatever else is printed."""

from absl import logging

from sparsejax.experiment.terminal.say import printable


class _Lines(logging.PythonFormatter):
  """absl's format, in which a value that is quoted begins no line of its own."""

  def format(self, record):
    return printable(super().format(record))


def show_warnings() -> None:
  """Shows warnings and nothing below them."""
  logging.set_verbosity(logging.WARNING)
  logging.get_absl_handler().setFormatter(_Lines())
