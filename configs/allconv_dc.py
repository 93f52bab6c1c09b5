"""The all-convolutional network on CIFAR-10 by Deep Compression (Han et al. 2015).

python launch.py --config=configs/allconv_dc.py          cuts at |p| <= 0.02
python launch.py --config=configs/allconv_dc.py:0.005    keeps exactly 0.5 % of all parameters
python launch.py --config=configs/allconv_dc.py:1.0      the dense control of equal length
"""

from configs import recipes


def get_config(active_fraction=''):
  return recipes.cifar10_deep_compression('allconv', active_fraction)
