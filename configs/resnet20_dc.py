"""ResNet20 on CIFAR-10 by Deep Compression (Han et al. 2015): dense, one cut, retraining.

python launch.py --config=configs/resnet20_dc.py         keeps 10 % of the kernels' weights
python launch.py --config=configs/resnet20_dc.py:0.05    5 %
python launch.py --config=configs/resnet20_dc.py:1.0     the dense control of equal length
"""

from configs import recipes


def get_config(active_fraction='0.1'):
  return recipes.cifar10_pruned('resnet20', active_fraction)
