"""MobileNet (3,217,226 parameters) on CIFAR-10, dense, as in the log.

python launch.py --config=configs/mobilenet_dense.py
"""

from configs import recipes


def get_config():
  return recipes.cifar10_sgd('mobilenet')
