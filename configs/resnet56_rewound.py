"""ResNet56 on CIFAR-10, a fifth of the weights a round, the rate rewound (Renda et al. 2020).

python launch.py --config=configs/resnet56_rewound.py         down to 10.7 % of the weights
python launch.py --config=configs/resnet56_rewound.py:0.03    3 %

180 epochs dense, then for each round a cut by global magnitude and the last 80 epochs of the
schedule again: 980 epochs for ten rounds. The paper: 93.56 % at 10.7 %, 91.15 % at 2.25 %.
"""

from configs import recipes


def get_config(active_fraction='0.1074'):
  return recipes.cifar10_rewound('resnet56', active_fraction, last_epochs=80.0)
