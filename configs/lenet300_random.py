"""LeNet-300-100 on MNIST, pruned at random: the baseline to beat.

python launch.py --config=configs/lenet300_random.py          keeps 10 % of the weights
python launch.py --config=configs/lenet300_random.py:0.01     1 %

It is otherwise like `lenet300_gradual`. Hours and expected error of these 99 epochs: unknown (not
run). In 36 epochs, a minute on 2 cores of AMD EPYC: 3.4 +- 0.2 % at 10x, 57.6 +- 4.6 % at 100x
(three seeds each, results/mnist_methods).
"""

from configs import lenet300_gradual


def get_config(density: float = 0.1):
  config = lenet300_gradual.get_config(density)
  config.method = 'random pruning'
  config.prune.criterion = 'random'
  return config
