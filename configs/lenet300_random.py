"""LeNet-300-100 on MNIST, pruned by lot along the cubic schedule: the baseline to beat.

python launch.py --config=configs/lenet300_random.py          keeps 10 % of the weights
python launch.py --config=configs/lenet300_random.py:0.01     1 %
"""

from configs import recipes


def get_config(active_fraction='0.1'):
  config = recipes.mnist_deep_compression('lenet300', 0.1, 99.0, active_fraction)
  return recipes.at_random(recipes.gradually(config, begin_epochs=10.0, end_epochs=60.0))
