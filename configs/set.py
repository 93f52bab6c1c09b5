"""A network on CIFAR-10, sparse from the first step by SET (Mocanu et al. 2018).

python launch.py --config=configs/set.py:NETWORK[,DENSITY]
python launch.py --config=configs/vgg16_set.py:0.01    the same as set.py:vgg16,0.01

It differs from `rigl.py` in that regrown weights are drawn at random, and the drop fraction does
not fall. It takes as long. Expected: unknown (not run).
"""

from configs import rigl


def get_config(network: rigl.Network, density: float | None = None):
  config = rigl.get_config(network, density)
  config.name, config.method = f'{network}_set', 'SET'
  config.prune.update_rule = 'set'
  return config
