"""ResNet50 on CIFAR-10 by Deep Compression (Han et al. 2015): dense, one cut, retraining.

python launch.py --config=configs/resnet50_dc.py          cuts at |p| <= 0.02
python launch.py --config=configs/resnet50_dc.py:0.005    keeps exactly 0.5 % of all parameters
python launch.py --config=configs/resnet50_dc.py:1.0      the dense control of equal length

The cut comes when the learning rate first falls. An epoch takes 61 minutes on 2 cores of AMD EPYC
(README); on an H100 its training steps alone take 3 seconds in bfloat16 (results/speed).
Expected, by the validation accuracy of the research log of 2017-18: at the threshold 92.3 % with
0.5 % active; with exactly 5, 1, 0.5 and 0.1 % active 93.5, 92.7, 90.7 and 62 %. Here: not run
(results/cifar10).
"""

from sparsejax.experiment.config import base


def get_config(density: float | None = None):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune'))
  config.method = 'deep compression (threshold)'
  config.model.name = 'resnet50'
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='one_shot', begin_epochs=60.0, parameters='all')
  config.prune.update(allocation='absolute_threshold', threshold=0.02)
  if density is not None:
    config.method = 'deep compression (exact)'
    config.prune.update(allocation='global_rank', density=density)
  return config
