"""The fewest weights at which the validation loss is still below a bound: the log's satisficing.

python -m sparsejax.sweep --config=configs/sweeps/satisficing.py --workdir=DIR --workers=2

LeNet-300-100 on MNIST by L1, 27 runs of 18 epochs drawn by TPE; the bound is the log's 0.0766.
Trials above the bound rank below all others, by their distance from it.
"""

from sparsejax.search.plan import base


def get_config():
  config = base.get_config()
  config.configs = (base.above(__file__, 'lenet300_l1.py'),)
  config.overrides = (
    'epochs=18.0',
    'scale_by_learning_rate.learning_rate.every_epochs=6.0',
    'proximal_l1.strength.every_epochs=9.0',
    'prune.begin_epochs=9.0',
  )
  config.sampler = 'tpe'
  config.scheduler.name = 'none'
  config.trials = 27
  config.space = (
    dict(key='proximal_l1.strength.value', kind='log_uniform', low=1e-5, high=3e-3),
    dict(key='scale_by_learning_rate.learning_rate.value', kind='log_uniform', low=0.02, high=0.2),
    dict(key='add_decayed_weights.weight_decay', kind='log_uniform', low=5e-6, high=1e-3),
  )
  config.objectives = (dict(metric='active_fraction', direction='minimize'),)
  config.constraints = (dict(metric='validation_loss', at_most=0.0766),)
  return config
