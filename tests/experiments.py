"""What a command line builds, in this process and without training."""

from ml_collections import config_flags  # noqa: F401  (launch defines its flags on import)

import launch
from sparsejax.experiment import setup

QUICK = '--config=configs/quickstart.py'


def build(*arguments):
  """The experiment of a command line."""
  launch.read(['launch.py', *arguments])
  return setup.build(launch.resolve())
