"""MobileNet on CIFAR-10, pruned gradually by magnitude (Zhu and Gupta 2017).

python launch.py --config=configs/mobilenet_gradual.py         keeps 10 % of the kernels' weights
python launch.py --config=configs/mobilenet_gradual.py:0.01    1 %
"""

from configs import recipes


def get_config(active_fraction='0.1'):
  return recipes.cifar10_gradual('mobilenet', active_fraction)
