"""Deep Compression (Han et al. 2015) on CIFAR-10, for networks other than ResNet50.

python launch.py --config=configs/dc.py:NETWORK[,DENSITY]    or configs/NETWORK_dc.py[:DENSITY]

The log's networks are cut at |p| <= 0.02 or to an exact density of all parameters; resnet20 and
resnet56 to a density of the kernels' weights, by default 10 %.

| network | an epoch on 2 cores of AMD EPYC (README) | expected: the log's validation accuracy |
|---|---|---|
| vgg16 | 8 minutes | threshold 91.8 % (1.6 % active); 5, 1, 0.5 %: 92.3, 91.3, 89.6 % |
| mobilenet | 3 minutes | threshold 89 % (1.7 % active); 5, 1 %: 89.1, 87.2 % |
| allconv | 2 minutes | not in the log; 15 epochs of 10,000 images: 59.6 % (cifar10_shortened) |
| resnet20, resnet56 | not measured | not in the research log |

At 0.1 % vgg16 and mobilenet collapsed in the log, mobilenet also at 0.5 %. Here none was run at
full length (results/cifar10).
"""

from typing import Literal

from configs import resnet50_dc

Network = Literal['vgg16', 'mobilenet', 'allconv', 'resnet20', 'resnet56']


def get_config(network: Network, density: float | None = None):
  of_kernels = network in ('resnet20', 'resnet56')
  config = resnet50_dc.get_config(0.1 if of_kernels and density is None else density)
  config.name = f'{network}_dc'
  config.model.name = network
  config.prune.parameters = 'kernels' if of_kernels else 'all'
  return config
