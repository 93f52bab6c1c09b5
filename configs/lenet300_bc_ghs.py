"""LeNet-300-100 on MNIST by Bayesian compression, horseshoe prior (Louizos et al. 2017).

python launch.py --config=configs/lenet300_bc_ghs.py
python launch.py --config=configs/lenet300_bc_ghs.py:0.1    a tenth of the KL

The paper: 311-86-14 inputs kept by the three layers at 1.8 % error, 9x by pruning, 23x with bits.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.mnist_bayesian_compression('lenet300', 'group_horseshoe', kl_weight, 200.0)
