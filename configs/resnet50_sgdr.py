"""ResNet50 on CIFAR-10 with warm restarts (SGDR, Loshchilov and Hutter 2017), as in the log.

The rate 0.2 falls along half a cosine over 10, 20, 40 and 80 epochs and starts anew after each; the
run ends with the fourth, at epoch 150.

python launch.py --config=configs/resnet50_sgdr.py
"""

from configs import recipes


def get_config():
  config = recipes.warm_restarts(recipes.cifar10_sgd('resnet50'))
  config.method = 'dense, SGDR'
  return config
