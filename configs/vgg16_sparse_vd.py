"""VGG16 on CIFAR-10 by sparse variational dropout (Molchanov et al. 2017).

python launch.py --config=configs/vgg16_sparse_vd.py
python launch.py --config=configs/vgg16_sparse_vd.py:0.1    a tenth of the KL

From a trained network: `--config.init_from=RUN`, a finished run of configs/vgg16_dense.py, with
the paper's `--config.sparse_vd.log_variance=-15 --config.sparse_vd.training_mask=False
--config.scale_by_learning_rate.learning_rate.initial=1e-5`.
"""

from configs import recipes


def get_config(kl_weight='1.0'):
  return recipes.cifar10_sparse_vd('vgg16', kl_weight)
