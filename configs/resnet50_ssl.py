"""ResNet50 on CIFAR-10 by structured sparsity learning (Wen et al. 2016), filter by filter.

python launch.py --config=configs/resnet50_ssl.py         strength 1e-4
python launch.py --config=configs/resnet50_ssl.py:1e-3    stronger

The method is the group lasso: every filter's norm is penalised with weight 1, as in the paper, for
half of 180 epochs; filters that are zero by then stay zero. The classifier keeps its units. An
epoch takes 61 minutes on 2 cores of AMD EPYC (README, dense). Expected: unknown (not run).
"""

from sparsejax.experiment.config import base


def get_config(strength: float = 1e-4):
  chain = ('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'proximal_group_l1', 'prune')
  config = base.get_config(chain)
  config.method = 'structured sparsity learning'
  config.model.name = 'resnet50'
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  penalty = dict(schedule='step_decay', value=strength, factor=0.0, every_epochs=90.0)
  config.proximal_group_l1 = dict(base.LINK_DEFAULTS['proximal_group_l1'], strength=penalty)
  config.proximal_group_l1.update(
    granularity='filters', group_weight='one', exclude=('^classifier/',)
  )
  config.prune.update(begin_epochs=90.0, parameters='kernels', threshold=0.0, floor=0)
  return config
