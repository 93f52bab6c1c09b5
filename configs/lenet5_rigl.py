"""LeNet-5-Caffe on MNIST, sparse from the first step by RigL (Evci et al. 2020).

python launch.py --config=configs/lenet5_rigl.py          keeps 5 % of the weights
python launch.py --config=configs/lenet5_rigl.py:0.01     1 %

The images are shifted at random by up to two pixels; the optimizer runs inside the masks, so that a
regrown weight starts without momentum. Hours and expected error: unknown (not run).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.05):
  config = base.get_config(('prune',))
  config.method = 'RigL'
  config.model.name = 'lenet5'
  config.data.update(name='mnist', crop_padding=2)
  config.epochs, config.batch_size = 30.0, 128
  config.prune.inner = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
  base.complete(config)
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.03, factor=0.1, every_epochs=10.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='periodic', begin_epochs=0.0, end_epochs=22.5, every_steps=100)
  config.prune.update(update_rule='rigl', drop_fraction=0.3, parameters='kernels')
  config.prune.update(allocation='erk', density=density)
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
