"""A LeNet on MNIST by Bayesian compression, horseshoe prior (Louizos et al. 2017).

python launch.py --config=configs/bc_ghs.py:NETWORK[,KL_WEIGHT]
python launch.py --config=configs/lenet5_bc_ghs.py:0.1    the same as bc_ghs.py:lenet5,0.1

It is trained as in `bc_gnj.py`, which gives the reasons; thresholds are read from the histograms'
gaps.

| network | the paper: units, error, by pruning, with bits | expected: test error, by pruning |
|---|---|---|
| lenet300 | 311-86-14 at 1.8 %, 9x, 23x | 1.75 +- 0.09 % at 9.7x (three seeds) |
| lenet5 | 5-10-76-16 at 1.0 %, 156x, 419x | 0.99 % at 128x (one seed) |

lenet300 takes 14 to 23 minutes on 2 cores of an Intel Xeon, lenet5 116 on 2 of AMD EPYC
(results/mnist_bayesian, where the row of lenet5 is `lenet5_bc_ghs_again`).
"""

from typing import Literal

from sparsejax.experiment.config import base

CHAIN = ('add_kl_gradients', 'clip', 'scale_by_adam', 'scale_by_learning_rate', 'bound_variances')


def get_config(network: Literal['lenet300', 'lenet5'], kl_weight: float = 1.0):
  config = base.get_config(CHAIN, layers='group_horseshoe')
  config.name, config.method = f'{network}_bc_ghs', 'Bayesian compression (horseshoe)'
  config.model.name = network
  # The papers train on all 60,000 images; here 1,000 are held out, on which nothing is chosen.
  config.data.update(name='mnist', validation=1000)
  if network == 'lenet300':
    config.epochs = 200.0
    # Pixels that never change are then 0; as -1 they act as biases that go with their inputs.
    config.data.scale = 'centred'
    config.bound_variances.update(maximum=0.1, where='^fc1/')
    config.group_horseshoe.thresholds = {'fc1': 2.8, 'fc2': 1.6, 'fc3': 2.4}
  else:
    config.epochs = 100.0
    config.data.scale = 'symmetric'
    config.bound_variances.update(maximum=0.04, where='^conv1/')
    # At 3 conv1 loses filters that it needs (57 % on validation); at 1.75 and 2 fc1 and fc2 lose
    # units that they need (98.0 % at 143x); these thresholds give 98.9 % at 128x.
    config.group_horseshoe.thresholds = {'conv1': 4.0, 'conv2': 3.0, 'fc1': 2.3, 'fc2': 3.0}
  config.batch_size = 128
  rising = dict(
    schedule='linear', initial=0.0, final=kl_weight, begin_epochs=0.0, end_epochs=config.epochs / 4
  )
  config.add_kl_gradients = dict(weight=rising)
  config.clip = dict(max_delta=0.2)
  falling = dict(schedule='linear', initial=3e-3, final=0.0, begin_epochs=0.65 * config.epochs)
  config.scale_by_learning_rate = dict(learning_rate=falling)
  config.log.update(every_steps=230, checkpoint_every_epochs=5.0)  # an epoch has 460 steps
  return config
