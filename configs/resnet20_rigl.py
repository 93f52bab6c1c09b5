"""ResNet20 on CIFAR-10, sparse from the first step by RigL (Evci et al. 2020).

python launch.py --config=configs/resnet20_rigl.py         keeps 10 % of the kernels' weights
python launch.py --config=configs/resnet20_rigl.py:0.01    1 %
"""

from configs import recipes


def get_config(active_fraction='0.1'):
  return recipes.cifar10_exchanging('resnet20', active_fraction, 'rigl')
