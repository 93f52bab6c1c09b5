"""Deep Compression in seconds: real 8x8 digits, a fully connected network that keeps 5 %.

python launch.py --config=configs/quickstart.py         keeps 5 % of the weights
python launch.py --config=configs/quickstart.py:0.02    2 %

It trains dense for 20 epochs, cuts once and retrains for 40 epochs (Han et al. 2015), within half a
minute on two CPU cores, most of it compilation. Expected: 97 % of the test digits recognised with
one weight in twenty (the README has 96.67 % on validation).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.05):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune'))
  config.method = 'deep compression (exact)'
  config.model.name = 'lenet300'
  config.data.name = 'digits'
  config.epochs, config.batch_size = 60.0, 32
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.05, factor=0.1, every_epochs=20.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='one_shot', begin_epochs=20.0, parameters='kernels')
  config.prune.update(allocation='global_rank', density=density)
  config.log.checkpoint_every_epochs = 20.0
  return config
