"""LeNet-300-100 on MNIST with L1 by the proximal step, which makes exact zeros.

python launch.py --config=configs/lenet300_l1.py          strength 1e-4
python launch.py --config=configs/lenet300_l1.py:1e-3     stronger

The penalty ends halfway; weights that are zero by then stay zero. Hours and expected error of these
99 epochs: unknown (not run). In 36 epochs, a minute on 2 cores of AMD EPYC: 1.70 +- 0.08 % at 6.8x
with strength 2e-4, 3.4 +- 0.2 % at 33x with 1.5e-3 (three seeds each, results/mnist_methods).
"""

from sparsejax.experiment.config import base


def get_config(strength: float = 1e-4):
  chain = ('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'proximal_l1', 'prune')
  config = base.get_config(chain)
  config.method = 'L1'
  config.model.name = 'lenet300'
  config.data.name = 'mnist'
  config.epochs, config.batch_size = 99.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=33.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  penalty = dict(schedule='step_decay', value=strength, factor=0.0, every_epochs=49.5)
  changed = dict(strength=penalty, parameters='kernels')
  config.proximal_l1 = base.LINK_DEFAULTS['proximal_l1'] | changed
  config.prune.update(begin_epochs=49.5, parameters='kernels', threshold=0.0, floor=0)
  config.log.update(every_steps=143, checkpoint_every_epochs=5.0)  # an epoch has 429 steps
  return config
