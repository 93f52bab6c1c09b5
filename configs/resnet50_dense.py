"""ResNet50 (23,520,842 parameters) on CIFAR-10, dense, as in the log.

python launch.py --config=configs/resnet50_dense.py
"""

from configs import recipes


def get_config():
  return recipes.cifar10_sgd('resnet50')
