"""LeNet-5-Caffe on MNIST, pruned gradually (dynamic network surgery: 0.91 % error at 108x).

python launch.py --config=configs/lenet5_gradual.py          keeps 0.925 % of the weights, 108x
python launch.py --config=configs/lenet5_gradual.py:0.005    0.5 %

The images are shifted at random by up to two pixels. The learning rate falls only when the 4,000
weights that are left have learned for eight epochs at the first one, and their decay is light: with
a rate that fell while weights went, and the decay of a dense network, they never fitted the
training images. 45 epochs take ten minutes on two CPU cores. Expected: 0.64 % error at 108x.
"""

from configs import recipes


def get_config(active_fraction='0.00925'):
  config = recipes.mnist_deep_compression('lenet5', 0.03, 45.0, active_fraction)
  config.data.crop_padding = 2
  config.scale_by_learning_rate = recipes.step_decay(0.03, every_epochs=30.0)
  config.add_decayed_weights.weight_decay = 5e-5
  return recipes.gradually(config, begin_epochs=2.0, end_epochs=22.0)
