"""A network on CIFAR-10, sparse from the first step by RigL (Evci et al. 2020).

python launch.py --config=configs/rigl.py:NETWORK[,DENSITY]
python launch.py --config=configs/vgg16_rigl.py:0.01    the same as rigl.py:vgg16,0.01

The layers' densities are Erdos-Renyi-Kernel's. Every 100 steps, for three quarters of the run, 30 %
of a layer's weights, later fewer, are exchanged for those with the largest gradients. The optimizer
runs inside the masks, so that a regrown weight starts without momentum. An epoch takes 61 minutes
for resnet50, 8 for vgg16 and 3 for mobilenet on 2 cores of AMD EPYC (README, dense). Expected:
unknown (not run). The authors had 93.6, 92.9 and 91.8 % at 20, 10 and 5 % on WRN-22-2.
"""

from typing import Literal

from sparsejax.experiment.config import base

Network = Literal['resnet50', 'vgg16', 'mobilenet', 'resnet20', 'resnet56']


def get_config(network: Network, density: float | None = None):
  config = base.get_config(('prune',))
  config.name, config.method = f'{network}_rigl', 'RigL'
  config.model.name = network
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  config.prune.inner = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
  base.complete(config)
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  if density is None:
    density = 0.1 if network in ('resnet20', 'mobilenet') else 0.05
  config.prune.update(schedule='periodic', begin_epochs=0.0, end_epochs=135.0, every_steps=100)
  config.prune.update(update_rule='rigl', drop_fraction=0.3, parameters='kernels')
  config.prune.update(allocation='erk', density=density)
  return config
