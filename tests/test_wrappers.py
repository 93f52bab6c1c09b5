"""Where others' wrappers meet masks: each row of docs/wrappers.md is a test of that name.

Mostly of two weights, 4 and 1, the second of which is removed at step 1.
"""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from sparsejax import apply_masks, criteria, one_shot, prune, with_grad

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

PAGE = pathlib.Path(__file__).parent.parent / 'docs' / 'wrappers.md'
ONES = {'w': jnp.ones((1, 2))}


def weights(*values):
  return {'w': jnp.array([values])}


def pruned(**options):
  return prune(one_shot(1, 0.5), **options)


def train(tx, steps, *, params=None, gradient=lambda params: ONES, **extra):
  """The parameters after each step, and the last state."""
  params = weights(4.0, 1.0) if params is None else params
  state, seen = tx.init(params), []
  for _ in range(steps):
    updates, state = tx.update(gradient(params), state, params, **extra)
    params = optax.apply_updates(params, updates)
    seen.append(params)
  return seen, state


def rows(found):
  return np.concatenate([params['w'] for params in found]).tolist()


def test_schedule_free():
  """The weight that stays is as without pruning; of the other nothing is left, unless chained."""

  def averaged():
    return optax.contrib.schedule_free(optax.sgd(0.5), 0.5, b1=0.5)

  (*_, alone), state_alone = train(averaged(), 4)
  expected = optax.contrib.schedule_free_eval_params(state_alone, alone)['w'][0, 0]
  (*_, params), state = train(pruned(inner=averaged()), 4)
  evaluated = optax.contrib.schedule_free_eval_params(state.inner_state, params)['w']
  assert evaluated.tolist() == [[expected, 0.0]]
  (*_, params), (state, _) = train(optax.chain(averaged(), pruned()), 4)
  assert params['w'][0, 1] == 0
  assert abs(optax.contrib.schedule_free_eval_params(state, params)['w'][0, 1]) > 0.5


def test_average_of_parameters():
  """By halves: 4 stays 4, and 1 is 1, 1/2, 1/4 after it was removed."""
  history, state = train(optax.chain(optax.sgd(0.0), pruned()), 3)
  average, seen = history[0], []
  for params in history:
    average = optax.incremental_update(params, average, 0.5)
    seen.append(average)
  assert rows(seen) == [[4.0, 1.0], [4.0, 0.5], [4.0, 0.25]]
  masks = optax.tree.get(state, 'masks')
  assert rows([apply_masks(average, masks)]) == [[4.0, 0.0]]


def test_ema_of_updates():
  before = optax.chain(optax.sgd(1.0), optax.ema(0.5, debias=False), pruned())
  assert rows(train(before, 3)[0]) == [[3.5, 0.5], [2.75, 0.0], [1.875, 0.0]]
  after = optax.chain(optax.sgd(1.0), pruned(), optax.ema(0.5, debias=False))
  assert train(after, 3)[0][-1]['w'][0, 1] != 0


def test_lookahead():
  """Slow parameters of (4, 1) meet fast ones of (2, 0) half-way, at (3, 1/2)."""
  tx = optax.lookahead(optax.chain(optax.sgd(1.0), pruned()), sync_period=2, slow_step_size=0.5)
  params = optax.LookaheadParams.init_synced(weights(4.0, 1.0))
  state = tx.init(params)
  for _ in range(2):
    updates, state = tx.update(ONES, state, params)
    params = optax.apply_updates(params, updates)
  assert rows(params) == [[3.0, 0.5], [3.0, 0.5]]
  masks = optax.tree.get(state, 'masks')
  params = optax.LookaheadParams(*(apply_masks(part, masks) for part in params))
  assert rows(params) == [[3.0, 0.0], [3.0, 0.0]]
  # It takes no extra arguments: what a criterion needs comes from `with_grad`.
  asks = optax.chain(optax.sgd(1.0), pruned(criterion=criteria.saliency))
  tx = optax.lookahead(with_grad(asks), sync_period=2, slow_step_size=0.5)
  params = optax.LookaheadParams.init_synced(weights(4.0, 1.0))
  state = tx.init(params)
  with pytest.raises(TypeError, match='grad'):
    tx.update(ONES, state, params, grad=ONES)
  for _ in range(2):
    updates, state = tx.update(ONES, state, params)
    params = optax.apply_updates(params, updates)
  assert int((optax.tree.get(state, 'masks')['w']).sum()) == 1


def test_multi_steps():
  """By |p g| of the mean (1/2, 5/2) the second weight stays; by the last gradient, (1, 0), not."""
  gradients = weights(0.0, 5.0), weights(1.0, 0.0)
  small = prune(one_shot(0, 0.5), criterion=criteria.saliency)
  for wrap, left in ((with_grad, [0.0, 1.0]), (lambda tx: tx, [4.0, 0.0])):
    tx = optax.MultiSteps(wrap(optax.chain(optax.sgd(0.0), small)), 2)
    params = weights(4.0, 1.0)
    state = tx.init(params)
    for grad in gradients:
      updates, state = tx.update(grad, state, params, grad=grad)
      params = optax.apply_updates(params, updates)
    assert rows([params]) == [left]


def test_train_state():
  chain = optax.chain(optax.sgd(0.5), pruned(criterion=criteria.saliency))
  state = TrainState.create(apply_fn=None, params=weights(4.0, 1.0), tx=with_grad(chain))
  for _ in range(2):
    state = state.apply_gradients(grads=weights(0.0, 1.0))
  assert rows([state.params]) == [[0.0, 0.0]]  # |p g| is 0 and 1/2, and the last step is -1/2
  state = TrainState.create(apply_fn=None, params=weights(4.0, 1.0), tx=chain)
  with pytest.raises(ValueError, match='needs the extra argument grad='):
    state.apply_gradients(grads=weights(0.0, 1.0))


def test_apply_if_finite():
  """The second gradient is not finite: around prune nothing happens at that step."""

  def trained(tx):
    gradients = iter([ONES, weights(jnp.nan, 1.0), ONES, ONES])
    seen, state = train(tx, 4, gradient=lambda params: next(gradients))
    return rows(seen), int(optax.tree.get(state, 'renewals')), int(state_of(state).count)

  def state_of(state):
    return next(s for s in jax.tree.leaves(state, is_leaf=is_prune) if is_prune(s))

  def is_prune(state):
    return hasattr(state, 'masks')

  around = optax.apply_if_finite(optax.chain(optax.sgd(0.25), pruned()), 3)
  expected = [[3.75, 0.75], [3.75, 0.75], [3.5, 0.0], [3.25, 0.0]]
  assert trained(around) == (expected, 1, 3)
  inside = pruned(inner=optax.apply_if_finite(optax.sgd(0.25), 3))
  expected[1] = [3.75, 0.0]
  assert trained(inside) == (expected, 1, 4)


def towards(params):
  """The gradient of half the squared distance from (0, 4)."""
  return jax.tree.map(lambda p: p - jnp.array([[0.0, 4.0]]), params)


def sam(opt, *, opaque, sync_period=2):
  ascent = optax.chain(optax.contrib.normalize(), optax.sgd(1.0))
  return optax.contrib.sam(opt, ascent, sync_period=sync_period, opaque_mode=opaque)


def test_sam():
  """At (4, 0) the gradient is (4, -4): masked, the ascent leads to (5, 0), dense, to (4.71, -.71).

  From there a step of 0.1 gives 3.5, or 3.53.
  """
  root = 0.5**0.5
  cut = prune(one_shot(0, 0.5), inner=sam(optax.sgd(0.1), opaque=True))
  start = weights(4.0, 0.0)
  ascent = {'grad_fn': lambda params, _: towards(params)}
  seen, _ = train(cut, 1, params=start, gradient=towards, **ascent)
  np.testing.assert_allclose(rows(seen), [[3.5, 0.0]], rtol=1e-6)
  # Two steps up, to (6, 0), and an optimizer that rescales by all of the gradient there, (6, 0).
  unit = optax.chain(optax.contrib.normalize(), optax.sgd(1.0))
  twice = prune(one_shot(0, 0.5), inner=sam(unit, opaque=True, sync_period=3))
  seen, _ = train(twice, 1, params=start, gradient=towards, **ascent)
  np.testing.assert_allclose(rows(seen), [[3.0, 0.0]], rtol=1e-6)
  last = prune(one_shot(0, 0.5))
  for tx in (
    optax.chain(sam(optax.sgd(0.1), opaque=True), last),
    sam(optax.chain(optax.sgd(0.1), last), opaque=True),
  ):
    seen, _ = train(tx, 1, params=start, gradient=towards, **ascent)
    np.testing.assert_allclose(rows(seen), [[4 - 0.1 * (4 + root), 0.0]], rtol=1e-6)
  # In two updates: there and back.
  halves = prune(one_shot(0, 0.5), inner=sam(optax.sgd(0.1), opaque=False))
  seen, _ = train(halves, 2, params=start, gradient=towards)
  np.testing.assert_allclose(rows(seen), [[5.0, 0.0], [3.5, 0.0]], rtol=1e-6)
  # What a criterion needs goes to it alone: of extra arguments SAM takes `grad_fn` only.
  asks = prune(
    one_shot(0, 0.5), criterion=criteria.saliency, inner=sam(optax.sgd(0.1), opaque=False)
  )
  for tx, extra in ((asks, {'grad': towards(start)}), (with_grad(asks), {})):
    seen, _ = train(tx, 2, params=start, gradient=towards, **extra)
    np.testing.assert_allclose(rows(seen), [[5.0, 0.0], [3.5, 0.0]], rtol=1e-6)
  around = sam(optax.chain(optax.sgd(0.1), last), opaque=False)
  seen, _ = train(around, 2, params=start, gradient=towards)
  there, back = [4 + root, -root], [4 - 0.1 * (4 + root), 0.0]
  np.testing.assert_allclose(rows(seen), [there, back], rtol=1e-6)


@pytest.mark.parametrize(
  'inner',
  [
    optax.lbfgs(),
    optax.lbfgs(linesearch=None),
    optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)),
    optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(10)),
  ],
)
def test_lbfgs(inner):
  with pytest.raises(ValueError, match=r'inner has (LBFGS|.*Linesearch), which evaluates'):
    pruned(inner=inner).init(weights(4.0, 1.0))


def test_inject_hyperparams():
  """A learning rate of 1 that is set to 0.5 for the third step, before prune or inside."""
  opt = optax.inject_hyperparams(optax.sgd)(learning_rate=1.0)
  for tx in (optax.chain(opt, pruned()), pruned(inner=opt)):
    (*_, params), state = train(tx, 2)
    assert rows([params]) == [[2.0, 0.0]]
    state = optax.tree.set(state, learning_rate=jnp.float32(0.5))
    updates, _ = tx.update(ONES, state, params)
    assert rows([optax.apply_updates(params, updates)]) == [[1.5, 0.0]]
  for static in ((), ('floor',), ('criterion',), ('floor', 'seed')):
    tx = optax.inject_hyperparams(prune, static_args=static)(one_shot(1, 0.5))
    with pytest.raises(ValueError, match=r'inject_hyperparams.* belongs around the optimizer'):
      tx.init(weights(4.0, 1.0))


def test_masked():
  """Half of four weights is two; the other branch is not counted and stays as it comes."""
  params = {
    'in': {'kernel': jnp.array([[4.0, 3.0, 2.0, 1.0]])},
    'out': {'kernel': jnp.ones((1, 2))},
  }
  tx = optax.masked(optax.chain(optax.sgd(0.0), pruned()), {'in': True, 'out': False})
  state = tx.init(params)
  for _ in range(2):
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
  cut = apply_masks(params, optax.tree.get(state, 'masks'))
  assert cut['in']['kernel'].tolist() == [[4.0, 3.0, 0.0, 0.0]]
  assert cut['out']['kernel'].tolist() == [[1.0, 1.0]]
  assert optax.apply_updates(params, updates)['in']['kernel'].tolist() == [[4.0, 3.0, 0.0, 0.0]]


def test_partition():
  """A quarter of one, half of the other."""
  params = {name: {'kernel': jnp.array([[4.0, 3.0, 2.0, 1.0]])} for name in ('a', 'b')}
  parts = {'a': prune(one_shot(0, 0.25)), 'b': prune(one_shot(0, 0.5))}
  tx = optax.partition(parts, {'a': 'a', 'b': 'b'})
  state = tx.init(params)
  updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
  left = optax.apply_updates(params, updates)
  assert left['a']['kernel'].tolist() == [[4.0, 0.0, 0.0, 0.0]]
  assert left['b']['kernel'].tolist() == [[4.0, 3.0, 0.0, 0.0]]
  with pytest.raises(KeyError):
    optax.tree.get(state, 'masks')
  for _, masks in optax.tree.get_all_with_path(state, 'masks'):
    params = apply_masks(params, masks)
  assert jax.tree.all(jax.tree.map(jnp.array_equal, params, left))


@pytest.mark.parametrize('inner', [optax.sm3(0.1), optax.flatten(optax.adam(0.1))])
def test_slots_that_nobody_can_tell_are_refused_inside_and_right_ahead(inner):
  params = {'w': jnp.array([[4.0, 1.0]]), 'b': jnp.ones(2)}
  with pytest.raises(ValueError, match='sm3, whose state is not arranged as the'):
    pruned(inner=inner).init(params)
  tx = optax.chain(inner, pruned())
  state = tx.init(params)
  for _ in range(2):
    changes, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    params = optax.apply_updates(params, changes)
  assert params['w'].tolist() == [[4.0, 0.0]]


def test_every_row_of_the_page_is_a_test():
  names = re.findall(r'\| `(\w+)` \|$', PAGE.read_text(), re.MULTILINE)
  tests = [name.removeprefix('test_') for name in globals() if name.startswith('test_')]
  assert names == tests[:-2]
