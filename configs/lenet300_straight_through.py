"""LeNet-300-100 on MNIST, sparse from the first step, by straight-through gradients.

python launch.py --config=configs/lenet300_straight_through.py          keeps 10 % of the weights
python launch.py --config=configs/lenet300_straight_through.py:0.01     1 %

Dense weights are trained by the gradients of the network that the largest of them form (Bengio et
al. 2013, Zhou et al. 2021), so that a removed weight may come back with what it has learned. The
optimizer runs inside, where weight decay acts on the dense weights. Hours and expected error of
these 99 epochs: unknown (not run).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.1):
  config = base.get_config(('straight_through',))
  config.method = 'straight-through'
  config.model.name = 'lenet300'
  config.data.name = 'mnist'
  config.epochs, config.batch_size = 99.0, 128
  inner = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
  config.straight_through.update(inner=inner, begin_epochs=0.0, renew_every_steps=1)
  base.complete(config)
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=33.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.straight_through.update(criterion='magnitude', parameters='kernels')
  config.straight_through.update(allocation='global_rank', density=density)
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
