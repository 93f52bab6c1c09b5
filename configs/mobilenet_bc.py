"""MobileNet on CIFAR-10 by Bayesian compression (Louizos et al. 2017).

python launch.py --config=configs/mobilenet_bc.py        all of the KL
python launch.py --config=configs/mobilenet_bc.py:0.1    a tenth

Depthwise filters go with their channels, pointwise ones by their outputs.
From a trained network: `--config.init_from=RUN`, a finished run of configs/mobilenet_dense.py.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.cifar10_bayesian_compression('mobilenet', kl_weight)
