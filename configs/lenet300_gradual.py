"""LeNet-300-100 on MNIST, pruned gradually (dynamic network surgery: 1.99 % error at 56x).

python launch.py --config=configs/lenet300_gradual.py          keeps 1.78 % of the weights, 56x
python launch.py --config=configs/lenet300_gradual.py:0.01     1 %

100 epochs take a minute on two CPU cores. Expected: 1.75 % error at 56x.
"""

from configs import recipes


def get_config(active_fraction='0.0178'):
  config = recipes.mnist_deep_compression('lenet300', 0.1, 99.0, active_fraction)
  return recipes.gradually(config, begin_epochs=10.0, end_epochs=60.0)
