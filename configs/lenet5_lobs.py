"""LeNet-5-Caffe on MNIST by L-OBS (Dong et al. 2017: 3.21 % error before retraining, 1.27 % after).

python launch.py --config=configs/lenet5_lobs.py         keeps 7 % of the weights
python launch.py --config=configs/lenet5_lobs.py:0.02    2 %
python launch.py --config=configs/lenet5_lobs.py:1.0     all of them: the dense control

It trains dense for 12 epochs; the surgery (half a minute) and three epochs of retraining follow. It
takes 8 to 20 minutes on 2 cores of AMD EPYC. `--config.lobs.method=magnitude` zeroes the smallest
weights instead, at the same step and as many in each layer. Expected: 0.79 % test error at 14.3x;
magnitude 0.94, dense 0.67 (one seed each, results/mnist_lobs).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.07):
  chain = ('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune')
  config = base.get_config(chain, events=('lobs',))
  config.method = 'L-OBS'
  config.model.name = 'lenet5'
  config.data.name = 'mnist'
  config.epochs, config.batch_size = 15.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.03, factor=0.1, every_epochs=6.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.lobs.update(at_epochs=12.0, density=density, method='lobs', batches=50)
  # Weights that the surgery set to zero stay zero.
  config.prune.update(begin_epochs=12.0, threshold=0.0, parameters='kernels')
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
