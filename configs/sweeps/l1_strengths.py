"""L1 strengths over the log's range, on its three networks: accuracy against active parameters.

python -m sparsejax.sweep --config=configs/sweeps/l1_strengths.py --workdir=DIR

A grid of 7 strengths, 3 networks and 3 seeds: 63 runs in full.
"""

from sparsejax.search import base


def get_config():
  configs = ('configs/resnet50_l1.py', 'configs/vgg16_l1.py', 'configs/mobilenet_l1.py')
  return base.grid(configs, ('1e-7', '3e-7', '1e-6', '3e-6', '1e-5', '3e-5', '1e-4'))
