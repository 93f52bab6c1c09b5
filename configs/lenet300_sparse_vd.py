"""LeNet-300-100 on MNIST by sparse variational dropout (Molchanov et al. 2017: 68x at 1.92 %).

python launch.py --config=configs/lenet300_sparse_vd.py
python launch.py --config=configs/lenet300_sparse_vd.py:0.1    a tenth of the KL

The authors' recipe: 200 epochs of Adam, the KL's weight rising from 0 to 1 between the epochs 5 and
20, the learning rate falling to 0 over the second half. A quarter of an hour on two CPU cores.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.mnist_sparse_vd('lenet300', kl_weight, constant_epochs=100.0)
