"""ResNet50 on CIFAR-10 by Deep Compression (Han et al. 2015): dense, one cut, retraining.

python launch.py --config=configs/resnet50_dc.py          cuts at |p| <= 0.02
python launch.py --config=configs/resnet50_dc.py:0.005    keeps exactly 0.5 % of all parameters
python launch.py --config=configs/resnet50_dc.py:1.0      the dense control of equal length
"""

from configs import recipes


def get_config(active_fraction=''):
  return recipes.cifar10_deep_compression('resnet50', active_fraction)
