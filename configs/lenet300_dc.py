"""LeNet-300-100 on MNIST by Deep Compression (Han et al. 2015: 1.58 % error at 12x).

python launch.py --config=configs/lenet300_dc.py          keeps 8 % of the weights
python launch.py --config=configs/lenet300_dc.py:0.018    1.8 %, where dynamic network surgery is

100 epochs take half a minute on two CPU cores. Expected: 1.5 % error at 12.5x.
"""

from configs import recipes


def get_config(active_fraction='0.08'):
  return recipes.mnist_deep_compression('lenet300', 0.1, 99.0, active_fraction)
