"""The all-convolutional network (89,674 parameters) on CIFAR-10, dense, as in the log.

python launch.py --config=configs/allconv_dense.py
"""

from configs import recipes


def get_config():
  return recipes.cifar10_sgd('allconv')
