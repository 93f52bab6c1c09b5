"""LeNet-5-Caffe on MNIST by L-OBS (Dong et al. 2017: 3.21 % error before retraining, 1.27 % after).

python launch.py --config=configs/lenet5_lobs.py         keeps 7 % of the weights
python launch.py --config=configs/lenet5_lobs.py:0.02    2 %
python launch.py --config=configs/lenet5_lobs.py:1.0     all of them: the dense control

Dense for 12 epochs, the surgery (half a minute), three epochs of retraining: eight to twenty
minutes on one CPU core. `--config.lobs.method=magnitude` zeroes the smallest weights instead, as
many in each layer and at the same step.
"""

from configs import recipes


def get_config(share='0.07'):
  return recipes.mnist_lobs('lenet5', 0.03, epochs=15.0, at_epochs=12.0, active_fraction=share)
