"""LeNet-300-100 on MNIST by Bayesian compression, normal-Jeffreys prior (Louizos et al. 2017).

python launch.py --config=configs/lenet300_bc_gnj.py
python launch.py --config=configs/lenet300_bc_gnj.py:0.1    a tenth of the KL

The paper: 278-98-13 inputs kept by the three layers at 1.8 % error, 9x by pruning, 36x with bits.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.mnist_bayesian_compression('lenet300', 'group_normal_jeffreys', kl_weight, 200.0)
