"""Deep Compression in seconds: real 8x8 digits, a fully connected network, 5 % of its weights kept.

python launch.py --config=configs/quickstart.py         keeps 5 % of the weights
python launch.py --config=configs/quickstart.py:0.02    2 %

Dense for 20 epochs, one cut, 40 epochs of retraining: 97 % of the test digits right with one weight
in twenty, on two CPU cores within half a minute, most of it compilation.
"""

from configs import recipes
from sparsejax.experiment.config import base


def get_config(active_fraction='0.05'):
  config = base.get_config((*base.SGD, 'prune'))
  config.data.name = 'digits'
  config.model.name = 'lenet300'
  config.epochs = 60.0
  config.batch_size = 32
  config.scale_by_learning_rate = recipes.step_decay(0.05, every_epochs=20.0)
  config.prune.begin_epochs = 20.0
  config.prune.parameters = 'kernels'
  config.log.checkpoint_every_epochs = 20.0
  return recipes.keep(config, active_fraction)
