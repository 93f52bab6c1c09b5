"""LeNet-300-100 on MNIST by the pruning stage of Deep Compression (Han et al. 2015: 1.59 % at 12x).

python launch.py --config=configs/lenet300_dc.py          keeps 8 % of the weights
python launch.py --config=configs/lenet300_dc.py:0.0178   1.78 %, as in dynamic network surgery

It takes a minute and a half on 2 cores of AMD EPYC. Expected: 1.46 +- 0.08 % test error at 12.5x,
2.19 % at 56x (three seeds each, results/mnist_deep_compression).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.08):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune'))
  config.method = 'deep compression (exact)'
  config.model.name = 'lenet300'
  config.data.name = 'mnist'
  config.epochs, config.batch_size = 99.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=33.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='one_shot', begin_epochs=33.0, parameters='kernels')
  config.prune.update(allocation='global_rank', density=density)
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
