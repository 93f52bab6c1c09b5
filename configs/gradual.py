"""A network on CIFAR-10, pruned gradually by magnitude (Zhu and Gupta 2017).

python launch.py --config=configs/gradual.py:NETWORK[,DENSITY]
python launch.py --config=configs/vgg16_gradual.py:0.01    the same as gradual.py:vgg16,0.01

Some of the kernels' weights are removed every 100 steps between epochs 20 and 120, by the cubic
schedule; the last 60 epochs run at the lowest rate. An epoch takes 61 minutes for resnet50, 8 for
vgg16 and 3 for mobilenet on 2 cores of AMD EPYC (README).
Expected: unknown (not run). On WRN-22-2 RigL's authors had 93.6, 93.3 and 92.3 % at 20, 10 and 5 %.
"""

from typing import Literal

from sparsejax.experiment.config import base

Network = Literal['resnet50', 'vgg16', 'mobilenet', 'resnet20', 'resnet56']


def get_config(network: Network, density: float | None = None):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune'))
  config.name, config.method = f'{network}_gradual', 'gradual magnitude pruning'
  config.model.name = network
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  if density is None:
    density = 0.1 if network in ('resnet20', 'mobilenet') else 0.05
  config.prune.update(schedule='cubic', begin_epochs=20.0, end_epochs=120.0, every_steps=100)
  config.prune.update(criterion='magnitude', parameters='kernels')
  config.prune.update(allocation='global_rank', density=density)
  return config
