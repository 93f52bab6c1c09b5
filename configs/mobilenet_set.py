"""MobileNet on CIFAR-10, sparse from the first step by SET (Mocanu et al. 2018).

python launch.py --config=configs/mobilenet_set.py         keeps 10 % of the kernels' weights
python launch.py --config=configs/mobilenet_set.py:0.01    1 %
"""

from configs import recipes


def get_config(active_fraction='0.1'):
  return recipes.cifar10_exchanging('mobilenet', active_fraction, 'set')
