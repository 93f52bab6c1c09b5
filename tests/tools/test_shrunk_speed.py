"""The ratios that tools/costs/shrunk_speed.py computes, and its page."""

import numpy as np

from sparsejax import models
from sparsejax.sparsity.leaves import tree
from tools.costs import shrunk_speed
from tools.costs.shrunk_speed import CASES, page, ratios, without_filters


def test_ratios_are_those_within_a_round():
  assert ratios([2.0, 6.0, 3.0], [1.0, 2.0, 1.0]) == {'median': 3.0, 'least': 2.0, 'most': 3.0}


def row(median):
  return {
    'case': 'vgg16_training',
    'share': 0.7,
    'parameters': [1000, 90],
    'seconds': {'whole': [0.3, 0.1, 0.2], 'shrunk': [0.05], 'scratch': [0.05]},
    'speedup': {'median': 4.0, 'least': 3.5, 'most': 4.25},
    'over_scratch': {'median': median, 'least': 0.9, 'most': 1.2},
  }


def test_the_page_says_whether_the_aim_is_reached():
  environment = {'cpus': 2, 'processor': 'a processor', 'versions': {'jax': '0.10'}}
  found = {'environment': environment, 'rounds': 3, 'rows': [row(1.04)]}
  text = page(found)
  cells = '70% | 1,000 | 90 | 200.0 ms | 50.0 ms | 4.00 (3.50 to 4.25) | 1.04 (0.90 to 1.20)'
  assert f'vgg16, training, batch 16 | {cells}' in text
  assert 'at most 1.04 times the time' in text
  assert 'within the aim of 1.05' in text
  assert 'beyond the aim' in page(found | {'rows': [row(1.04), row(1.06)]})


def test_the_share_of_each_layers_filters_is_zero():
  model = models.create('lenet5', width=4)
  params = without_filters(CASES['lenet5'], model, 0.5)['params']
  kernels = {path: np.asarray(leaf) for path, leaf in tree.kernels(params).items()}
  dead = {
    path: int((~kernel.any(tuple(range(kernel.ndim - 1)))).sum())
    for path, kernel in kernels.items()
  }
  assert dead == {'conv1/kernel': 2, 'conv2/kernel': 5, 'fc1/kernel': 50, 'fc2/kernel': 0}
  assert not params['conv1']['bias'][~kernels['conv1/kernel'].any((0, 1, 2))].any()


def test_every_case_names_a_network():
  assert {case.model for case in shrunk_speed.CASES.values()} <= set(models.MODELS)
