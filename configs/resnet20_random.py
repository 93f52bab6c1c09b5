"""ResNet20 on CIFAR-10, pruned by lot along the cubic schedule: the baseline to beat.

python launch.py --config=configs/resnet20_random.py         keeps 10 % of the kernels' weights
python launch.py --config=configs/resnet20_random.py:0.01    1 %
"""

from configs import recipes


def get_config(active_fraction='0.1'):
  return recipes.at_random(recipes.cifar10_gradual('resnet20', active_fraction))
