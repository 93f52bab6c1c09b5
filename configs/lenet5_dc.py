"""LeNet-5-Caffe on MNIST by Deep Compression (Han et al. 2015: 0.74 % error at 12x).

python launch.py --config=configs/lenet5_dc.py          keeps 8 % of the weights
python launch.py --config=configs/lenet5_dc.py:0.009    0.9 %, where dynamic network surgery is

60 epochs take ten minutes on two CPU cores.
"""

from configs import recipes


def get_config(active_fraction='0.08'):
  return recipes.mnist_deep_compression('lenet5', 0.03, 60.0, active_fraction)
