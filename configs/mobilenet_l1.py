"""MobileNet on CIFAR-10 with L1 by the proximal step, behind the momentum.

python launch.py --config=configs/mobilenet_l1.py         strength 4.6e-5
python launch.py --config=configs/mobilenet_l1.py:1e-4    stronger
"""

from configs import recipes


def get_config(strength='4.6e-5'):
  return recipes.cifar10_shrunk('mobilenet', strength)
