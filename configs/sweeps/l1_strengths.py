"""L1 strengths over the log's range, on its three networks: accuracy against active parameters.

python -m sparsejax.sweep --config=configs/sweeps/l1_strengths.py --workdir=DIR

It is a grid of 7 strengths, 3 networks and 3 seeds: 63 full runs.
"""

from sparsejax.search.plan import base


def get_config():
  models = ('resnet50', 'vgg16', 'mobilenet')
  configs = tuple(base.above(__file__, f'{model}_l1.py') for model in models)
  return base.grid(configs, ('1e-7', '3e-7', '1e-6', '3e-6', '1e-5', '3e-5', '1e-4'))
