"""The weight of the KL over the research log's range: how much accuracy for how much compression.

python -m sparsejax.sweep --config=configs/sweeps/kl_weights.py --workdir=DIR
python -m sparsejax.sweep --config=configs/sweeps/kl_weights.py:configs/resnet50_bc.py --workdir=DIR

It makes 16 full runs, drawn by TPE for both objectives at once.
"""

from sparsejax.search.plan import base


def get_config(config_file=base.above(__file__, 'vgg16_bc.py')):
  config = base.get_config()
  config.configs = (config_file,)
  config.sampler = 'tpe'
  config.scheduler.name = 'none'
  config.trials = 16
  config.space = (
    dict(key='add_kl_gradients.weight.final', kind='log_uniform', low=1e-4, high=1.0),
  )
  config.objectives = base.ACCURATE_AND_SPARSE
  return config
