"""LeNet-5-Caffe on MNIST, pruned gradually (dynamic network surgery: 0.91 % error at 108x).

python launch.py --config=configs/lenet5_gradual.py          keeps 0.925 % of the weights, 108x
python launch.py --config=configs/lenet5_gradual.py:0.005    0.5 %

The images are shifted at random by up to two pixels. The learning rate falls only after the 4,000
remaining weights have learned for eight epochs at the first rate, and their decay is light: with a
rate that fell during pruning, and the decay of a dense network, they never fitted the training
images. It takes 37 to 46 minutes on 2 shared cores of AMD EPYC. Expected: 0.64 +- 0.02 % test error
at 108x (three seeds, results/mnist_methods).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.00925):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune'))
  config.method = 'gradual magnitude pruning'
  config.model.name = 'lenet5'
  config.data.update(name='mnist', crop_padding=2)
  config.epochs, config.batch_size = 45.0, 128
  config.add_decayed_weights.weight_decay = 5e-5
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.03, factor=0.1, every_epochs=30.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='cubic', begin_epochs=2.0, end_epochs=22.0, every_steps=100)
  config.prune.update(criterion='magnitude', parameters='kernels')
  config.prune.update(allocation='global_rank', density=density)
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
