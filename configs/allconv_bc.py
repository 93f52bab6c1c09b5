"""The all-convolutional network on CIFAR-10 by Bayesian compression (Louizos et al. 2017).

python launch.py --config=configs/allconv_bc.py        all of the KL
python launch.py --config=configs/allconv_bc.py:0.1    a tenth

The log, by variances that it found wrong: 85 % at a tenth of the KL, 71 % at all (89 % dense).
From a trained network: `--config.init_from=RUN`, a finished run of configs/allconv_dense.py.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.cifar10_bayesian_compression('allconv', kl_weight)
