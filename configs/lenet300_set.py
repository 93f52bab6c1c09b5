"""LeNet-300-100 on MNIST, sparse from the first step by SET (Mocanu et al. 2018).

python launch.py --config=configs/lenet300_set.py          keeps 10 % of the weights
python launch.py --config=configs/lenet300_set.py:0.01     1 %
"""

from configs import recipes


def get_config(active_fraction='0.1'):
  config = recipes.mnist_deep_compression('lenet300', 0.1, 99.0, active_fraction)
  return recipes.exchanging(config, 'set')
