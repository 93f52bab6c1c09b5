"""A command line of argparse whose mistakes are errors, for a command to tell in its own way."""

import argparse
from typing import NoReturn


class Parser(argparse.ArgumentParser):
  """An ArgumentParser that raises a ValueError of one line where argparse ends the process."""

  def error(self, message: str) -> NoReturn:
    raise ValueError(message)
