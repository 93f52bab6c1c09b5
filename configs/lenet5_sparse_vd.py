"""LeNet-5-Caffe on MNIST by sparse variational dropout (Molchanov et al. 2017: 280x at 0.75 %).

python launch.py --config=configs/lenet5_sparse_vd.py
python launch.py --config=configs/lenet5_sparse_vd.py:0.1    a tenth of the KL

The recipe is the authors': that of `lenet300_sparse_vd`, with another network and a learning rate
that falls to 0 from the start. It takes two and a half hours on 2 cores of AMD EPYC. Expected:
1.01 % test error at 264x; with three times the learning rate 0.77 % at 190x (one seed each,
results/mnist_bayesian).
"""

from configs import lenet300_sparse_vd


def get_config(kl_weight: float = 1.0):
  config = lenet300_sparse_vd.get_config(kl_weight)
  config.model.name = 'lenet5'
  config.scale_by_learning_rate.learning_rate.begin_epochs = 0.0
  return config
