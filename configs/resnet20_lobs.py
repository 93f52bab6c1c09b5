"""ResNet20 on CIFAR-10 by L-OBS (Dong et al. 2017), with BatchNorm re-estimated right after.

python launch.py --config=configs/resnet20_lobs.py         keeps 30 % of the kernels' weights
python launch.py --config=configs/resnet20_lobs.py:0.1     10 %
python launch.py --config=configs/resnet20_lobs.py:1.0     all of them: the dense control

Dense for 160 epochs of the log's recipe, the surgery, 20 epochs of retraining at the lowest rate.
"""

from configs import recipes


def get_config(share='0.3'):
  return recipes.cifar10_lobs('resnet20', at_epochs=160.0, active_fraction=share)
