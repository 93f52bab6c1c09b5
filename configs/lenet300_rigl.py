"""LeNet-300-100 on MNIST, sparse from the first step by RigL (Evci et al. 2020).

python launch.py --config=configs/lenet300_rigl.py          keeps 10 % of the weights
python launch.py --config=configs/lenet300_rigl.py:0.01     1 %

The optimizer runs inside the masks, so that a regrown weight starts without momentum.
Hours and expected error of these 99 epochs: unknown (not run). In 36 epochs, a minute on 2 cores of
AMD EPYC: 1.57 +- 0.05 % at 10x, 3.5 +- 0.3 % at 100x (three seeds each, results/mnist_methods).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.1):
  config = base.get_config(('prune',))
  config.method = 'RigL'
  config.model.name = 'lenet300'
  config.data.name = 'mnist'
  config.epochs, config.batch_size = 99.0, 128
  config.prune.inner = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
  base.complete(config)
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=33.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='periodic', begin_epochs=0.0, end_epochs=74.25, every_steps=100)
  config.prune.update(update_rule='rigl', drop_fraction=0.3, parameters='kernels')
  config.prune.update(allocation='erk', density=density)
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
