"""Bayesian compression (Louizos et al. 2017) of a network on CIFAR-10, which removes whole filters.

python launch.py --config=configs/bc.py:NETWORK[,KL_WEIGHT]
python launch.py --config=configs/vgg16_bc.py:0.1    the same as bc.py:vgg16,0.1: a tenth of the KL

The prior is normal-Jeffreys, the bounds are the log's. The KL's weight rises over 30 epochs: at the
start the KL is many nats per example, and at full weight everything is removed before anything is
learned. In mobilenet, depthwise filters are removed with their channels, and pointwise kernels lose
whole outputs.
To start from a trained network, give `--config.init_from=RUN`, a finished run of
configs/NETWORK_dense.py.

Hours: not measured. Expected at full length: unknown (not run). The log, with variances that it
found to be wrong: allconv 85 % with a tenth of the KL and 71 % with all of it (89 % dense),
resnet50 about 10x at 15 % training accuracy. The paper, on a VGG with another head: 14x at 8.6 %
error, 56x with bits. Shortened runs, of 16 to 34 minutes on 2 cores of AMD EPYC, are in
results/cifar10_bayesian.
"""

from typing import Literal

from sparsejax.experiment.config import base

CHAIN = ('add_kl_gradients', 'clip', 'scale_by_adam', 'scale_by_learning_rate', 'bound_variances')


def get_config(
  network: Literal['allconv', 'vgg16', 'resnet50', 'mobilenet'], kl_weight: float = 1.0
):
  config = base.get_config(CHAIN, layers='group_normal_jeffreys')
  config.name = f'{network}_bc'
  config.method = 'Bayesian compression (normal-jeffreys)'
  config.model.name = network
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  rising = dict(schedule='linear', initial=0.0, final=kl_weight, begin_epochs=0.0, end_epochs=30.0)
  config.add_kl_gradients = dict(weight=rising)
  config.clip = dict(max_delta=0.2)
  falling = dict(schedule='linear', initial=1e-3, final=0.0, begin_epochs=90.0)
  config.scale_by_learning_rate = dict(learning_rate=falling)
  config.bound_variances.maximum = 0.5
  config.group_normal_jeffreys.update(threshold=-3.0, log_variance=-9.0)
  return config
