"""Deep Compression to exact active fractions on three networks: the log's chart `dc_trends`.

python -m sparsejax.sweep --config=configs/sweeps/exact_sparsity.py --workdir=DIR

It is a grid of 5 fractions, 3 networks and 3 seeds: 45 full runs, including the dense controls.
"""

from sparsejax.search.plan import base


def get_config():
  models = ('resnet50', 'vgg16', 'mobilenet')
  configs = tuple(base.above(__file__, f'{model}_dc.py') for model in models)
  return base.grid(configs, ('1.0', '0.05', '0.01', '0.005', '0.001'))
