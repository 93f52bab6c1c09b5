"""ResNet50 on CIFAR-10 with warm restarts (SGDR, Loshchilov and Hutter 2017), as in the log.

python launch.py --config=configs/resnet50_sgdr.py

The rate falls from 0.2 along half a cosine over 10, 20, 40 and 80 epochs and restarts after each;
the run ends with the fourth. An epoch takes 61 minutes on 2 cores of AMD EPYC (README). Expected:
unknown (not run).
"""

from sparsejax.experiment.config import base


def get_config():
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate'))
  config.method = 'dense, SGDR'
  config.model.name = 'resnet50'
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 150.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='sgdr', value=0.2, first_epochs=10.0, multiply=2.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  return config
