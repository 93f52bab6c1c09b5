"""ResNet56 on CIFAR-10, pruned by a fifth in each round, with the rate rewound (Renda et al. 2020).

python launch.py --config=configs/resnet56_rewound.py              to 10.7 % of the weights
python launch.py --config=configs/resnet56_rewound.py:0.03         to 3 %
python launch.py --config=configs/resnet56_weights_rewound.py      the weights rewound, too

It trains dense for 180 epochs; then each round cuts by global magnitude and repeats the last 80
epochs of the schedule: 980 epochs for ten rounds. Hours: not measured. Expected: unknown (not run).
The paper: 93.56, 92.88, 91.75 and 91.15 % at 10.7, 5.5, 2.8 and 2.25 %.
"""

from sparsejax.experiment.config import base
from sparsejax.sparsity.parts import schedules

DENSE, AGAIN = 180.0, 80.0  # epochs of the schedule, and epochs at its end that rounds repeat
FRACTION = 0.2


def get_config(density: float = 0.1074):
  config = base.get_config(('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'prune'))
  config.method = 'learning-rate rewinding'
  config.model.name = 'resnet56'
  config.data.update(name='cifar10', split='first', crop_padding=4, flip=True)
  rounds = (
    len(schedules.iterative(0, 1, density, fraction=FRACTION).steps) if 0 < density <= 1 else 1
  )
  config.epochs, config.batch_size = DENSE + rounds * AGAIN, 128
  config.add_decayed_weights.weight_decay = 5e-4
  config.trace.decay = 0.9
  falling = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  rate = dict(schedule='rewound', base=falling, length_epochs=DENSE, last_epochs=AGAIN)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  config.prune.update(schedule='iterative', round_fraction=FRACTION, begin_epochs=DENSE)
  del config.prune.every_steps
  config.prune.every_epochs = AGAIN
  config.prune.update(parameters='kernels', allocation='global_rank', density=density)
  return config
