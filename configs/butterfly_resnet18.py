"""ResNet18 of butterfly layers on CIFAR-10 (log, 16 October 2017: 74 % and unstable).

python launch.py --config=configs/butterfly_resnet18.py            the log's tree of 2-tap filters
python launch.py --config=configs/butterfly_resnet18.py:general    products of 2x2 butterfly factors
"""

from configs import recipes

MODELS = {'log': 'butterfly_resnet18', 'general': 'butterfly_resnet18_general'}


def get_config(form='log'):
  if form not in MODELS:
    raise ValueError(f'butterfly_resnet18.py:{form}: allowed are {", ".join(MODELS)}')
  return recipes.cifar10_sgd(MODELS[form])
