"""The proximal transformations refuse bad input before the first update."""

import chex
import jax.numpy as jnp
import optax
import pytest
from toy import network, train

from sparsejax import adam_metric, granularity, proximal_group_l1, proximal_l1

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (lambda p: proximal_l1(-1.0, 0.1), 'strength=-1.0 must be a number of 0 or more'),
    (lambda p: proximal_l1(float('nan'), 0.1), 'strength=nan must be'),
    (lambda p: proximal_l1('strong', 0.1), 'strength=strong must be'),
    (lambda p: proximal_l1(None, 0.1), 'strength=None must be'),
    (lambda p: proximal_group_l1(1.0, -0.1), 'learning_rate=-0.1 must be'),
    (lambda p: proximal_group_l1(1.0, float('inf')), 'learning_rate=inf must be'),
    (lambda p: proximal_l1(1.0, 0.1, 1.0), r'momentum=1.0 must be a number in \[0, 1\)'),
    (lambda p: proximal_l1(1.0, 0.1, lambda count: 0.9), 'momentum=<function'),
    (lambda p: proximal_group_l1(1.0, 0.1, group_weight='root'), "unknown group_weight 'root'"),
    (lambda p: proximal_l1(1.0, 0.1, metric=adam_metric()), 'metric= needs inner='),
    (
      lambda p: proximal_l1(1.0, 0.1, inner=optax.sgd(0.1, momentum=0.9)).init(p),
      'inner has 0 states of ScaleByAdamState or .*: an optimizer without second moments goes',
    ),
    (
      lambda p: proximal_l1(1.0, 0.1, inner=optax.rmsprop(0.1), metric=adam_metric()).init(p),
      'inner has 0 states of ScaleByAdamState; it must have one',
    ),
    (
      lambda p: proximal_l1(
        1.0, 0.1, inner=optax.chain(optax.scale_by_adam(), optax.rmsprop(0.1))
      ).init(p),
      'inner has 2 states of .* give each of them a proximal transformation of its own',
    ),
    (
      lambda p: proximal_l1(
        1.0, 0.1, inner=optax.masked(optax.adam(0.1), {'conv': True, 'norm': True, 'head': False})
      ).init(p),
      "inner has no second moments of 'head'; exclude it",
    ),
    (lambda p: proximal_l1(1.0, 0.1, parameters='kernel').init(p), "did you mean 'kernels'"),
    (lambda p: proximal_l1(1.0, 0.1, exclude=('fc9',)).init(p), "'fc9' matches no parameter"),
  ],
)
def test_bad_input_is_refused_before_the_first_update(make, message):
  with pytest.raises(ValueError, match=message) as error:
    make(network())
  assert '\n' not in str(error.value)


def test_second_moments_of_a_part_are_enough_for_that_part():
  inner = optax.masked(optax.adam(0.1), {'conv': True, 'norm': True, 'head': False})
  tx = proximal_l1(1.0, 0.1, inner=inner, exclude='^head')
  chex.assert_tree_all_finite(train(tx, network(), 4)[-1])


def test_small_steps_inside_are_refused():
  """MultiSteps inside would subtract the threshold also in steps in which Adam makes no update."""
  adam = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
  with pytest.raises(ValueError, match='MultiSteps; place that around the whole chain'):
    proximal_l1(1.0, 0.1, inner=adam).init({'kernel': jnp.ones((1, 2))})


def test_n_of_m_has_no_groups_to_shrink():
  with pytest.raises(ValueError, match='single weights as groups; use proximal_l1'):
    proximal_group_l1(1.0, 0.1, granularity=granularity.n_m(2, 4))
