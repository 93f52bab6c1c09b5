"""ResNet50 on CIFAR-10 by structured sparsity learning (Wen et al. 2016), filter by filter.

python launch.py --config=configs/resnet50_ssl.py         strength 1e-4
python launch.py --config=configs/resnet50_ssl.py:1e-3    stronger

By the group lasso: every filter's norm is penalised with weight 1, as in the paper, for half of 180
epochs; a filter that is zero then stays so. The classifier keeps its units.
"""

from configs import recipes


def get_config(strength='1e-4'):
  config = recipes.cifar10_shrunk('resnet50', strength)
  return recipes.by_filters(config, exclude=('^classifier/',))
