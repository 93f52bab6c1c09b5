"""ResNet20 (272,474 parameters) on CIFAR-10, dense, by the log's recipe.

python launch.py --config=configs/resnet20_dense.py
"""

from configs import recipes


def get_config():
  return recipes.cifar10_sgd('resnet20')
