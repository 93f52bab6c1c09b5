"""The log's search: learning rate, its fall, batch size and weight decay, by Hyperband with eta 5.

python -m sparsejax.sweep --config=configs/sweeps/learning_rate.py --workdir=DIR
python -m sparsejax.sweep --config=configs/sweeps/learning_rate.py:configs/vgg16_dc.py --workdir=DIR

180 epochs at most: 125@1 -> 25@7 -> 5@36 -> 1@180, 34@7 -> 6@36 -> 1@180, 10@36 -> 2@180, 4@180.
"""

from sparsejax.search.plan import base


def get_config(config_file=base.above(__file__, 'resnet50_dc.py')):
  config = base.get_config()
  config.configs = (config_file,)
  config.scheduler.eta = 5
  config.space = (
    dict(key='scale_by_learning_rate.learning_rate.value', kind='log_uniform', low=0.01, high=0.4),
    dict(key='scale_by_learning_rate.learning_rate.factor', kind='uniform', low=0.0, high=0.5),
    dict(key='batch_size', kind='choices', choices=(64, 128, 256)),
    dict(key='add_decayed_weights.weight_decay', kind='log_uniform', low=5e-6, high=1e-4),
  )
  return config
