"""LeNet-300-100 on MNIST by Bayesian compression, horseshoe prior (Louizos et al. 2017).

python launch.py --config=configs/lenet300_bc_ghs.py
python launch.py --config=configs/lenet300_bc_ghs.py:0.1    a tenth of the KL

The paper: 311-86-14 inputs kept by the three layers at 1.8 % error, 9x by pruning, 23x with bits.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  config = recipes.mnist_bayesian_compression('lenet300', 'group_horseshoe', kl_weight, 200.0)
  # Pixels that never change are 0 then; as -1 they are biases, lost when their inputs go.
  config.data.scale = 'centred'
  config.bound_variances.maximum = 0.1
  config.group_horseshoe.thresholds = {'fc1': 2.8, 'fc2': 1.6, 'fc3': 2.4}
  return config
