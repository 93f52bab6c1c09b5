"""A network on CIFAR-10, pruned at random: the baseline to beat.

python launch.py --config=configs/random.py:NETWORK[,DENSITY]
python launch.py --config=configs/vgg16_random.py:0.01    the same as random.py:vgg16,0.01

It is otherwise like `gradual.py` and takes as long. Expected: unknown (not run).
"""

from configs import gradual


def get_config(network: gradual.Network, density: float | None = None):
  config = gradual.get_config(network, density)
  config.name, config.method = f'{network}_random', 'random pruning'
  config.prune.criterion = 'random'
  return config
