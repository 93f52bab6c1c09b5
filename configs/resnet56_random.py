"""ResNet56 on CIFAR-10, pruned by lot along the cubic schedule: the baseline to beat.

python launch.py --config=configs/resnet56_random.py         keeps 5 % of the kernels' weights
python launch.py --config=configs/resnet56_random.py:0.01    1 %
"""

from configs import recipes


def get_config(active_fraction='0.05'):
  return recipes.at_random(recipes.cifar10_gradual('resnet56', active_fraction))
