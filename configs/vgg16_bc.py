"""VGG16 on CIFAR-10 by Bayesian compression (Louizos et al. 2017).

python launch.py --config=configs/vgg16_bc.py        all of the KL
python launch.py --config=configs/vgg16_bc.py:0.1    a tenth

The paper, on a VGG with another head: 14x by whole filters at 8.6 % error, 56x with bits.
From a trained network: `--config.init_from=RUN`, a finished run of configs/vgg16_dense.py.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.cifar10_bayesian_compression('vgg16', kl_weight)
