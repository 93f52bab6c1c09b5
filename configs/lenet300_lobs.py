"""LeNet-300-100 on MNIST by L-OBS (Dong et al. 2017: 3.10 % error before retraining, 1.82 % after).

python launch.py --config=configs/lenet300_lobs.py         keeps 7 % of the weights
python launch.py --config=configs/lenet300_lobs.py:0.02    2 %
python launch.py --config=configs/lenet300_lobs.py:1.0     all of them: the dense control

Dense for 40 epochs, the surgery (ten seconds), five epochs of retraining: a minute on one CPU
core. `--config.lobs.method=magnitude` zeroes the smallest weights instead, as many in each layer
and at the same step; by one ranking over the layers, which is also what serves magnitude best.
"""

from configs import recipes


def get_config(share='0.07'):
  return recipes.mnist_lobs('lenet300', 0.1, epochs=45.0, at_epochs=40.0, active_fraction=share)
