"""LeNet-300-100 on MNIST, sparse from the first step by SET (Mocanu et al. 2018).

python launch.py --config=configs/lenet300_set.py          keeps 10 % of the weights
python launch.py --config=configs/lenet300_set.py:0.01     1 %

It differs from `lenet300_rigl` in that regrown weights are drawn at random, and the drop fraction
does not fall. Hours and expected error of these 99 epochs: unknown (not run). In 36 epochs, a
minute on 2 cores of AMD EPYC: 1.62 +- 0.04 % at 10x (three seeds, results/mnist_methods).
"""

from configs import lenet300_rigl


def get_config(density: float = 0.1):
  config = lenet300_rigl.get_config(density)
  config.method = 'SET'
  config.prune.update_rule = 'set'
  return config
