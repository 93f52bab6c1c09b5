"""ResNet50 on CIFAR-10 by Bayesian compression (Louizos et al. 2017).

python launch.py --config=configs/resnet50_bc.py        all of the KL
python launch.py --config=configs/resnet50_bc.py:0.1    a tenth

The log: about 10x by whole filters at 15 % training accuracy.
From a trained network: `--config.init_from=RUN`, a finished run of configs/resnet50_dense.py.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.cifar10_bayesian_compression('resnet50', kl_weight)
