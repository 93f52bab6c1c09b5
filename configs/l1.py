"""A network on CIFAR-10 with L1 on every kernel by the proximal step, which makes exact zeros.

python launch.py --config=configs/l1.py:NETWORK[,STRENGTH[,RATE]]
python launch.py --config=configs/resnet50_l1.py:2.1e-5         the same as l1.py:resnet50,2.1e-5
python launch.py --config=configs/resnet50_l1.py:2.1e-5,sgdr    with warm restarts, as in the log

The penalty ends at epoch 90 (sgdr: 70), while the rate is still high enough for the remaining
weights to recover from its bias; weights at zero by then stay zero. An epoch takes 61 minutes
for resnet50, 8 for vgg16 and 3 for mobilenet on 2 cores of AMD EPYC (README, dense). Expected:
unknown (not run). The log's strengths were 1e-6, 2.1e-5, 4.6e-5 and 1e-4, on all parameters, by a
subgradient that makes no zeros, and without weight decay, so that it overfitted; its mobilenet had
85.6, 88.4, 89.3 and 89.5 % validation accuracy with 0.55, 1.4, 3.6 and 40 % above 1e-3.
"""

from typing import Literal

from sparsejax.experiment.config import base

Network = Literal['resnet50', 'vgg16', 'mobilenet', 'resnet20']


def get_config(
  network: Network, strength: float | None = None, rate: Literal['steps', 'sgdr'] = 'steps'
):
  chain = ('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'proximal_l1', 'prune')
  config = base.get_config(chain)
  config.name, config.method = f'{network}_l1', 'L1'
  config.model.name = network
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.batch_size = 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  if rate == 'sgdr':  # half cosines over 10, 20, 40 and 80 epochs; the last begins at 70
    config.epochs, off_epochs = 150.0, 70.0
    falling = dict(schedule='sgdr', value=0.2, first_epochs=10.0, multiply=2.0)
  else:
    config.epochs, off_epochs = 180.0, 90.0
    falling = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  config.scale_by_learning_rate = dict(learning_rate=falling)
  if strength is None:
    strength = 1e-5 if network == 'resnet20' else 4.6e-5
  penalty = dict(schedule='step_decay', value=strength, factor=0.0, every_epochs=off_epochs)
  changed = dict(strength=penalty, parameters='kernels')
  config.proximal_l1 = base.LINK_DEFAULTS['proximal_l1'] | changed
  config.prune.update(begin_epochs=off_epochs, parameters='kernels', threshold=0.0, floor=0)
  return config
