"""LeNet-5-Caffe on MNIST by the pruning stage of Deep Compression (Han et al. 2015: 0.77 % at 12x).

python launch.py --config=configs/lenet5_dc.py          keeps 8 % of the weights
python launch.py --config=configs/lenet5_dc.py:0.009    0.9 %, as in dynamic network surgery

The images are shifted at random by up to two pixels, unlike the papers'; without the shifts, three
recipes ended between 0.83 and 0.89 %. It takes 9 to 12 minutes on 2 cores of AMD EPYC.
Expected: 0.553 +- 0.012 % test error at 12.5x (three seeds, results/mnist_deep_compression).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.08):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune'))
  config.method = 'deep compression (exact)'
  config.model.name = 'lenet5'
  config.data.update(name='mnist', crop_padding=2)
  config.epochs, config.batch_size = 30.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.03, factor=0.1, every_epochs=10.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='one_shot', begin_epochs=10.0, parameters='kernels')
  config.prune.update(allocation='global_rank', density=density)
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
