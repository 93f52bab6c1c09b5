"""Trains like launch.py, with the log's fault of 2 February 2018 put back into the KL.

python tools/wrong_variance.py --config=configs/lenet300_bc_gnj.py --workdir=DIR ...

The KL of the weights takes each log-variance for a log standard deviation, as the log's
convolutions did; sampling and the deployed network read it correctly.
"""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from sparsejax import launch
from sparsejax.posterior.families import kl

right = kl.standard_normal_kl
kl.standard_normal_kl = lambda mean, log_variance: right(mean, 2 * log_variance)

if __name__ == '__main__':
  # The config cannot tell: by default the run would be put where the right one belongs.
  if not any(argument.startswith('--workdir=') for argument in sys.argv):
    sys.exit('wrong_variance.py: --workdir is missing: it must be --workdir=DIR')
  sys.exit(launch.main(sys.argv))
