"""LeNet-300-100 on MNIST, pruned gradually (dynamic network surgery: 1.99 % error at 56x).

python launch.py --config=configs/lenet300_gradual.py          keeps 1.78 % of the weights, 56x
python launch.py --config=configs/lenet300_gradual.py:0.01     1 %

The schedule is the cubic one of Zhu and Gupta (2017). It takes two minutes on 2 cores of AMD EPYC.
Expected: 1.75 +- 0.04 % test error at 56x (three seeds, results/mnist_deep_compression).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.0178):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune'))
  config.method = 'gradual magnitude pruning'
  config.model.name = 'lenet300'
  config.data.name = 'mnist'
  config.epochs, config.batch_size = 99.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=33.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='cubic', begin_epochs=10.0, end_epochs=60.0, every_steps=100)
  config.prune.update(criterion='magnitude', parameters='kernels')
  config.prune.update(allocation='global_rank', density=density)
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
