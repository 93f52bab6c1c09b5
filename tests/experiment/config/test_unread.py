"""A setting that is read only with another one changes nothing in the built link without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.experiment.chain import pruning_links
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.config import base
from sparsejax.experiment.config.check import unmet_condition
from sparsejax.experiment.data import datasets

CLOCK = Clock(examples=1000, batch_size=10, epochs=10)
PRUNE = base.LINK_DEFAULTS['prune'] | {
  'allocation': 'uniform',
  'density': 0.5,
  'begin_epochs': 1.0,
  'end_epochs': 5.0,
}
RIGL = {'schedule': 'iterative', 'update_rule': 'rigl'}
OTHER = {
  'every_steps': 50,
  'end_epochs': 4.0,
  'round_fraction': 0.3,
  'block': (2, 2),
  'n': 3,
  'm': 8,
  'in_multiples': 4,
  'density': 0.25,
  'threshold': 0.3,
  'drop_fraction': 0.1,
  'start': 'criterion',
}
BLOCKS = {'granularity': 'blocks'}
THRESHOLD = {'allocation': 'absolute_threshold'}
EVERY = [
  {},
  {'schedule': 'cubic'},
  {'schedule': 'iterative'},
  {'schedule': 'cubic'} | BLOCKS,
  {'granularity': 'filters'},
  {'granularity': 'n_m'},
  THRESHOLD,
  {'schedule': 'periodic', 'update_rule': 'set'},
  {'schedule': 'periodic', 'update_rule': 'rigl'},
  RIGL,
]


def traced(block, name='prune'):
  """The link as it is computed, constants and all."""
  link = pruning_links.build(block, CLOCK, seed=0, inner=None, costs=None, link=name)
  params = {'fc': {'kernel': jnp.ones((16, 16))}, 'out': {'kernel': jnp.ones((16, 8))}}
  update = jax.make_jaxpr(lambda u, s, p: link.update(u, s, p, grad=u))
  state = link.init(params)
  closed = update(params, state, params)
  arrays = [*closed.consts, *jax.tree.leaves(state)]  # of the state, what was planned
  return str(closed), [np.asarray(array).tobytes() for array in arrays]


@pytest.mark.parametrize('changes', EVERY, ids=str)
@pytest.mark.parametrize('field', OTHER)
def test_a_setting_of_prune_changes_the_link_exactly_where_it_is_read(changes, field):
  block = PRUNE | changes
  is_same = traced(block) == traced(block | {field: OTHER[field]})
  assert bool(unmet_condition({'prune': block}, f'prune.{field}')) == is_same


WHEN = {'begin_epochs': 1.0, 'end_epochs': 5.0}
STRAIGHT = base.LINK_DEFAULTS['straight_through'] | WHEN | {'density': 0.5}


@pytest.mark.parametrize('changes', [{}, {'schedule': 'cubic'} | BLOCKS, THRESHOLD], ids=str)
@pytest.mark.parametrize('field', [name for name in OTHER if name in STRAIGHT])
def test_and_one_of_straight_through(changes, field):
  block = STRAIGHT | changes
  of_both = [traced(block | other, 'straight_through') for other in ({}, {field: OTHER[field]})]
  is_unread = bool(unmet_condition({'straight_through': block}, f'straight_through.{field}'))
  assert is_unread == (of_both[0] == of_both[1])


def test_the_split_of_the_digits_is_one_and_a_split_in_order_has_no_seed():
  digits = [datasets.load('digits', split_seed=seed).train.labels for seed in (0, 1)]
  np.testing.assert_array_equal(*digits)
  for name, split, is_unread in (
    ('digits', 'shuffle', True),
    ('mnist', 'first', True),
    ('mnist', 'shuffle', False),
  ):
    config = {'data': {'name': name, 'split': split}}
    assert bool(unmet_condition(config, 'data.split_seed')) == is_unread


def test_what_is_no_field_of_another_is_always_read():
  assert unmet_condition({}, 'scale_by_learning_rate.learning_rate.every_epochs') == ''
