"""ResNet50 on CIFAR-10 with L1 by the proximal step, and with warm restarts, as in the log.

python launch.py --config=configs/resnet50_l1.py                strength 4.6e-5
python launch.py --config=configs/resnet50_l1.py:2.1e-5         a weaker one
python launch.py --config=configs/resnet50_l1.py:2.1e-5,sgdr    the same under SGDR

The log's strengths were 1e-6, 2.1e-5, 4.6e-5 and 1e-4, on every parameter, by a subgradient that
makes no zeros; these are on the kernels, by a step that does.
"""

from configs import recipes


def get_config(argument='4.6e-5'):
  strength, _, rate = argument.partition(',')
  if rate not in ('', 'sgdr'):
    raise ValueError(f'resnet50_l1.py:{argument}: allowed are STRENGTH and STRENGTH,sgdr')
  return recipes.cifar10_shrunk('resnet50', strength, restarts=rate == 'sgdr')
