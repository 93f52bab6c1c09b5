"""ResNet56 on CIFAR-10, a fifth of the weights a round, all rewound (Renda et al. 2020).

python launch.py --config=configs/resnet56_weights_rewound.py         down to 10.7 % of the weights
python launch.py --config=configs/resnet56_weights_rewound.py:0.03    3 %

As `resnet56_rewound`, and what a cut leaves goes back to its values of epoch 100, where the 80
epochs of the schedule that follow every cut begin.
"""

from configs import recipes


def get_config(active_fraction='0.1074'):
  return recipes.cifar10_rewound('resnet56', active_fraction, last_epochs=80.0, what='weights')
