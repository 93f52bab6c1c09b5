"""What a command line builds, in this process and without training."""

from sparsejax.experiment.config import commandline
from sparsejax.experiment.training import setup

QUICK = '--config=configs/quickstart.py'


def build(*arguments):
  """The experiment of a command line."""
  return setup.build(commandline.resolve(arguments))
