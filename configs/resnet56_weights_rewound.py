"""ResNet56 on CIFAR-10 with the weights rewound as well as the rate (Renda et al. 2020).

python launch.py --config=configs/resnet56_weights_rewound.py         to 10.7 % of the weights
python launch.py --config=configs/resnet56_weights_rewound.py:0.03    to 3 %

It differs from `resnet56_rewound` in that the weights that a cut leaves return to their values of
epoch 100, from which every cut repeats the last 80 epochs of the schedule. Hours: not measured.
Expected: unknown (not run).
"""

from configs import resnet56_rewound


def get_config(density: float = 0.1074):
  config = resnet56_rewound.get_config(density)
  config.method = 'weight rewinding'
  config.chain = ('add_decayed_weights', 'trace', 'scale_by_learning_rate', 'rewind', 'prune')
  config.rewind = dict(to_epochs=resnet56_rewound.DENSE - resnet56_rewound.AGAIN)
  return config
