"""What a command line builds, in this process and without training."""

from sparsejax.experiment import setup
from sparsejax.experiment.config import commandline

QUICK = '--config=configs/quickstart.py'


def build(*arguments):
  """The experiment of a command line."""
  return setup.build(commandline.resolve(arguments))
