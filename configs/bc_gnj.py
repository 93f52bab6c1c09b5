"""A LeNet on MNIST by Bayesian compression, normal-Jeffreys prior (Louizos et al. 2017).

python launch.py --config=configs/bc_gnj.py:NETWORK[,KL_WEIGHT]
python launch.py --config=configs/lenet5_bc_gnj.py:0.1    the same as bc_gnj.py:lenet5,0.1

It is trained much as the authors did. As there, the first layer's variances are bounded; otherwise
the layer would drop its inputs before the others have learned to use them. Three things differ. The
KL's weight rises over a quarter of the run instead of four epochs: the remaining network is better
by 0.2 points of error, and no larger. The learning rate is three times the paper's: at 1e-3 groups
are still being removed after 150 epochs. And it falls to 0 over the last third.

| network | the paper: units, error, by pruning, with bits | expected: test error, by pruning |
|---|---|---|
| lenet300 | 278-98-13 at 1.8 %, 9x, 36x | 1.65 +- 0.05 % at 12.9x (three seeds) |
| lenet5 | 8-13-88-13 at 1.0 %, 108x, 361x | 1.03 % at 110x (one seed) |

lenet300 takes 11 to 13 minutes on 2 cores of an Intel Xeon, lenet5 64 on 2 of AMD EPYC
(results/mnist_bayesian).
"""

from typing import Literal

from sparsejax.experiment.config import base

CHAIN = ('add_kl_gradients', 'clip', 'scale_by_adam', 'scale_by_learning_rate', 'bound_variances')


def get_config(network: Literal['lenet300', 'lenet5'], kl_weight: float = 1.0):
  epochs, first = {'lenet300': (200.0, '^fc1/'), 'lenet5': (100.0, '^conv1/')}[network]
  config = base.get_config(CHAIN, layers='group_normal_jeffreys')
  config.name = f'{network}_bc_gnj'
  config.method = 'Bayesian compression (normal-jeffreys)'
  config.model.name = network
  # The papers train on all 60,000 images; here 1,000 are held out, on which nothing is chosen.
  config.data.update(name='mnist', scale='symmetric', validation=1000)
  config.epochs, config.batch_size = epochs, 128
  rising = dict(
    schedule='linear', initial=0.0, final=kl_weight, begin_epochs=0.0, end_epochs=epochs / 4
  )
  config.add_kl_gradients = dict(weight=rising)
  config.clip = dict(max_delta=0.2)
  falling = dict(schedule='linear', initial=3e-3, final=0.0, begin_epochs=0.65 * epochs)
  config.scale_by_learning_rate = dict(learning_rate=falling)
  config.bound_variances.update(maximum=0.04, where=first)
  config.group_normal_jeffreys.update(threshold=-3.0, log_variance=-9.0)
  config.log.update(every_steps=230, checkpoint_every_epochs=5.0)  # an epoch has 460 steps
  return config
