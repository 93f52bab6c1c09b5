"""ResNet20 on CIFAR-10 with L1 by the proximal step, behind the momentum.

python launch.py --config=configs/resnet20_l1.py         strength 1e-5
python launch.py --config=configs/resnet20_l1.py:1e-4    stronger
"""

from configs import recipes


def get_config(strength='1e-5'):
  return recipes.cifar10_shrunk('resnet20', strength)
