"""LeNet-300-100 on MNIST with L1 by the proximal step, behind the momentum.

python launch.py --config=configs/lenet300_l1.py          strength 1e-4
python launch.py --config=configs/lenet300_l1.py:1e-3     stronger
"""

from configs import recipes


def get_config(strength='1e-4'):
  config = recipes.mnist_sgd('lenet300', 0.1, 99.0)
  return recipes.shrunk(config, strength, off_epochs=49.5)
