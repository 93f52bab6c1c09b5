"""LeNet-300-100 on MNIST by L-OBS (Dong et al. 2017: 3.10 % error before retraining, 1.82 % after).

python launch.py --config=configs/lenet300_lobs.py         keeps 7 % of the weights
python launch.py --config=configs/lenet300_lobs.py:0.02    2 %
python launch.py --config=configs/lenet300_lobs.py:1.0     all of them: the dense control

It trains dense for 40 epochs; the surgery (ten seconds) and five epochs of retraining follow.
`--config.lobs.method=magnitude` zeroes the smallest weights instead, at the same step and as many
in each layer; the counts come from one ranking over the layers, which also serves magnitude best.
Expected: with the surgery at epoch 30, a minute on 2 cores of AMD EPYC, 1.54 +- 0.05 % test error
at 14.3x; magnitude 1.50 +- 0.01, dense 1.40 +- 0.10 (three seeds each, results/mnist_lobs); at
epoch 40: not run.
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.07):
  chain = ('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune')
  config = base.get_config(chain, events=('lobs',))
  config.method = 'L-OBS'
  config.model.name = 'lenet300'
  config.data.name = 'mnist'
  config.epochs, config.batch_size = 45.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=20.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.lobs.update(at_epochs=40.0, density=density, method='lobs', batches=50)
  # Weights that the surgery set to zero stay zero.
  config.prune.update(begin_epochs=40.0, threshold=0.0, parameters='kernels')
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
