"""ResNet18 with butterfly layers on CIFAR-10.

python launch.py --config=configs/butterfly_resnet18.py            the log's tree of 2-tap filters
python launch.py --config=configs/butterfly_resnet18.py:general    products of 2x2 butterfly factors
                                                                   (Dao et al. 2019)

An epoch takes 21 minutes on 2 cores of AMD EPYC, or 10 in the general form (README). Expected: the
log had 74 %, and the training was unstable (16 October 2017). Here it was not run at
full width; narrower, in 15 epochs of 10,000 images, it had 45.3 and 47.0 %
(results/cifar10_shortened).
"""

from typing import Literal

from sparsejax.experiment.config import base


def get_config(form: Literal['log', 'general'] = 'log'):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate'))
  config.model.name = {'log': 'butterfly_resnet18', 'general': 'butterfly_resnet18_general'}[form]
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  config.epochs, config.batch_size = 180.0, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  rate = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  return config
