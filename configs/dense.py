"""A dense network on CIFAR-10, by the research log's recipe.

python launch.py --config=configs/dense.py:NETWORK        or configs/NETWORK_dense.py

| network | parameters | an epoch on 2 cores of AMD EPYC (README) | expected, validation |
|---|---|---|---|
| resnet50 | 23,520,842 | 61 minutes | the research log, before its cut: 93.6 % |
| vgg16 | 14,728,266 | 8 minutes | not in the research log |
| mobilenet | 3,217,226 | 3 minutes | not in the research log |
| allconv | 89,674 | 2 minutes | the research log: 89 % |
| resnet20, resnet56 | 272,474; 855,770 | not measured | not in the research log |

Here no network was run at full length (results/cifar10).
"""

from typing import Literal

from sparsejax.experiment.config import base

Network = Literal['resnet50', 'vgg16', 'mobilenet', 'allconv', 'resnet20', 'resnet56']


def get_config(network: Network):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate'))
  config.name = f'{network}_dense'
  config.model.name = network
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  return config
