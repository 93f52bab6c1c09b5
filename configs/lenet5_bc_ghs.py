"""LeNet-5-Caffe on MNIST by Bayesian compression, horseshoe prior (Louizos et al. 2017).

python launch.py --config=configs/lenet5_bc_ghs.py
python launch.py --config=configs/lenet5_bc_ghs.py:0.1    a tenth of the KL

The paper: 5-10-76-16 at 1.0 % error, 156x by pruning, 419x with bits.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.mnist_bayesian_compression('lenet5', 'group_horseshoe', kl_weight, 100.0)
