"""ResNet20 on CIFAR-10 by L-OBS (Dong et al. 2017), with BatchNorm re-estimated right after.

python launch.py --config=configs/resnet20_lobs.py         keeps 30 % of the kernels' weights
python launch.py --config=configs/resnet20_lobs.py:0.1     10 %
python launch.py --config=configs/resnet20_lobs.py:1.0     all of them: the dense control

It trains dense for 160 epochs by the research log's recipe; the surgery and 20 epochs of retraining
at the lowest rate follow. Hours: not measured. Expected: unknown (not run).
"""

from sparsejax.experiment.config import base


def get_config(density: float = 0.3):
  chain = ('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune')
  events = ('lobs', 'recalibrate_batch_norm')  # both at one step, in this order
  config = base.get_config(chain, events)
  config.method = 'L-OBS'
  config.model.name = 'resnet20'
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.lobs.update(at_epochs=160.0, density=density, batches=50)
  config.recalibrate_batch_norm.update(at_epochs=160.0, batches=50)
  # Weights that the surgery set to zero stay zero.
  config.prune.update(begin_epochs=160.0, threshold=0.0, parameters='kernels')
  return config
