"""VGG16 on CIFAR-10, sparse from the first step by SET (Mocanu et al. 2018).

python launch.py --config=configs/vgg16_set.py         keeps 5 % of the kernels' weights
python launch.py --config=configs/vgg16_set.py:0.01    1 %
"""

from configs import recipes


def get_config(active_fraction='0.05'):
  return recipes.cifar10_exchanging('vgg16', active_fraction, 'set')
