"""LeNet-5-Caffe on MNIST, sparse from the first step by RigL (Evci et al. 2020).

python launch.py --config=configs/lenet5_rigl.py          keeps 5 % of the weights
python launch.py --config=configs/lenet5_rigl.py:0.01     1 %
"""

from configs import recipes


def get_config(active_fraction='0.05'):
  config = recipes.mnist_deep_compression('lenet5', 0.03, 30.0, active_fraction)
  config.data.crop_padding = 2
  return recipes.exchanging(config, 'rigl')
