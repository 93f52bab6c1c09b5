"""Sparse variational dropout (Molchanov et al. 2017) of a network's kernels on CIFAR-10.

python launch.py --config=configs/sparse_vd.py:NETWORK[,KL_WEIGHT]
python launch.py --config=configs/vgg16_sparse_vd.py:0.1    the same as sparse_vd.py:vgg16,0.1

BatchNorm and biases stay as they are. The KL's weight rises over 30 epochs: at full weight from the
start, everything is removed before anything is learned. To start from a trained network, give
`--config.init_from=RUN`, a finished run of configs/NETWORK_dense.py, with the paper's
`--config.sparse_vd.log_variance=-15 --config.sparse_vd.training_mask=False
--config.scale_by_learning_rate.learning_rate.initial=1e-5`.

Hours: not measured. Expected: unknown (not run). The paper: up to 68x without loss, on a VGG with
another head.
"""

from typing import Literal

from sparsejax.experiment.config import base


def get_config(network: Literal['allconv', 'vgg16'], kl_weight: float = 1.0):
  chain = ('add_kl_gradients', 'scale_by_adam', 'scale_by_learning_rate')
  config = base.get_config(chain, layers='sparse_vd')
  config.name, config.method = f'{network}_sparse_vd', 'sparse variational dropout'
  config.model.name = network
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  rising = dict(schedule='linear', initial=0.0, final=kl_weight, begin_epochs=0.0, end_epochs=30.0)
  config.add_kl_gradients = dict(weight=rising)
  falling = dict(schedule='linear', initial=1e-3, final=0.0, begin_epochs=90.0)
  config.scale_by_learning_rate = dict(learning_rate=falling)
  config.sparse_vd.update(threshold=3.0, training_mask=True, log_variance=-10.0)
  return config
