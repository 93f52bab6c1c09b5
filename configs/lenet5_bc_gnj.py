"""LeNet-5-Caffe on MNIST by Bayesian compression, normal-Jeffreys prior (Louizos et al. 2017).

python launch.py --config=configs/lenet5_bc_gnj.py
python launch.py --config=configs/lenet5_bc_gnj.py:0.1    a tenth of the KL

The paper: 8-13-88-13 at 1.0 % error, 108x by pruning, 361x with bits.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.mnist_bayesian_compression('lenet5', 'group_normal_jeffreys', kl_weight, 100.0)
