"""LeNet-5-Caffe on MNIST, pruned gradually (dynamic network surgery: 0.91 % error at 108x).

python launch.py --config=configs/lenet5_gradual.py          keeps 0.925 % of the weights, 108x
python launch.py --config=configs/lenet5_gradual.py:0.005    0.5 %

The images are shifted at random by up to two pixels. 30 epochs take six minutes on two CPU cores.
"""

from configs import recipes


def get_config(active_fraction='0.00925'):
  config = recipes.mnist_deep_compression('lenet5', 0.03, 30.0, active_fraction)
  config.data.crop_padding = 2
  return recipes.gradually(config, begin_epochs=2.0, end_epochs=18.0)
