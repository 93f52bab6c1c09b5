"""Real 8x8 digits, a fully connected network, gradual pruning to 5 %: seconds on two CPU cores.

python launch.py --config=configs/quickstart.py
"""

from configs import base


def get_config():
  config = base.get_config((*base.SGD, 'prune'))
  config.method = 'deep compression (gradual)'
  config.data.name = 'digits'
  config.model.name = 'lenet300'
  config.epochs = 120.0
  config.batch_size = 64
  config.trace.nesterov = True
  config.scale_by_learning_rate.learning_rate = 0.05
  return config
