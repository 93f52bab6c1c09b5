"""VGG16 (14,728,266 parameters) on CIFAR-10, dense, as in the log.

python launch.py --config=configs/vgg16_dense.py
"""

from configs import recipes


def get_config():
  return recipes.cifar10_sgd('vgg16')
