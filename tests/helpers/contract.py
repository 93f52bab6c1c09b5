"""The contract of a transformation, point by point.

Each point is a function of `make`, which makes the transformation (a functools.partial of its
factory, whose keywords may be added to), and raises an AssertionError that says what is broken.
What a point needs of a run of the transformation comes from `trial`, which compiles it once.
"""

import contextlib
import functools
import tempfile

import chex
import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from trials import (
  STEPS,
  Moment,
  descent,
  every_kind_of_tree,
  extra_arguments,
  gradient,
  jitted,
  layer,
  run,
  step,
  trial,
)

from sparsejax.internal.private import NO_PARAMS_MSG


@contextlib.contextmanager
def required(what: str):
  """Turns whatever is raised inside into the AssertionError that says what does not work."""
  try:
    yield
  except Exception as error:
    raise AssertionError(f'{what}: {type(error).__name__}: {error}') from error


def _inner(make) -> optax.GradientTransformation | None:
  return getattr(make, 'keywords', {}).get('inner')


def _start(tx):
  params = layer()
  return params, tx.init(params)


def _trace_with_more(tx):
  """Traces one update that is given an extra argument that no link of ours uses."""

  def update(params):
    return tx.update(params, tx.init(params), params, **extra_arguments(params), unheard_of='this')

  jax.eval_shape(update, layer())


def _two_layers():
  return {'first': layer(), 'second': layer()}


def _is_first(tree):
  return {name: jax.tree.map(lambda _, name=name: name == 'first', tree[name]) for name in tree}


@functools.cache
def _link_under_masks(make):
  return jitted(make())


def _only_the_first_of_two_layers(make, tx):
  with required('with leaves left out'):
    history = run(tx, _two_layers())
  for moment, alone in zip(history, trial(make).history, strict=True):
    chex.assert_trees_all_close(moment.params['first'], alone.params, rtol=1e-5, atol=1e-6)
  for t in range(STEPS):
    arrived = descent(gradient(history[t].params['second'], t))
    chex.assert_trees_all_equal(history[t + 1].updates['second'], arrived)


# The points


def the_state_is_a_named_tuple(make):
  state = make().init(layer())
  named = isinstance(state, tuple) and hasattr(state, '_fields')
  assert named, f'the state is a {type(state).__name__}, not a NamedTuple'


def structure_shapes_and_dtypes_are_kept(make):
  before, *moments = trial(make).history
  for moment in moments:
    chex.assert_trees_all_equal_shapes_and_dtypes(moment.updates, before.params)
    chex.assert_trees_all_equal_shapes_and_dtypes(moment.state, before.state)


def it_runs_in_a_loop_on_the_device(make):
  tx = make()

  def body(t, carried):
    moment = step(tx, *carried, t)
    return moment.params, moment.state

  with required('inside a loop'):
    jax.eval_shape(lambda carried: jax.lax.fori_loop(0, STEPS, body, carried), _start(tx))


def without_jit_it_is_the_same(make):
  for eager, compiled in zip(run(make(), layer()), trial(make).history, strict=True):
    chex.assert_trees_all_close(eager, compiled, rtol=1e-5, atol=1e-6)


def replicas_stay_identical(make):
  """Four devices with four gradients, whose average is the gradient of the trial."""
  tx = make()

  def mapped_step(offset, params, state, t):
    grad = jax.tree.map(lambda g: jax.lax.pmean(g + offset, 'batch'), gradient(params, t))
    updates, state = tx.update(descent(grad), state, params, **extra_arguments(grad))
    return optax.apply_updates(params, updates), updates, state

  mapped = jax.pmap(mapped_step, axis_name='batch', in_axes=(0, 0, 0, None))
  offsets = jnp.array([-3.0, -1.0, 1.0, 3.0])
  params, state = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), _start(tx))
  for t, expected in enumerate(trial(make).history[1:]):
    moment = Moment(*mapped(offsets, params, state, jnp.float32(t)))
    params, _, state = moment
    shards = [jax.tree.map(lambda leaf, i=i: leaf[i], jax.device_get(moment)) for i in range(4)]
    for shard in shards[1:]:
      chex.assert_trees_all_equal(shard, shards[0])
    chex.assert_trees_all_close(shards[0], expected, rtol=1e-5, atol=1e-6)


def it_is_compiled_once(make):
  traces = trial(make).traces
  assert traces == 1, f'{STEPS} steps were traced {traces} times'


def unknown_extra_arguments_are_accepted(make):
  tx = make()
  known = isinstance(tx, optax.GradientTransformationExtraArgs)
  assert known, 'optax.chain passes extra arguments only to a GradientTransformationExtraArgs'
  with required('with an extra argument that it does not know'):
    _trace_with_more(tx)


def extra_arguments_reach_the_inner_links(make):
  if not _inner(make):
    return
  seen = {}

  def look(updates, state, params=None, **extra_args):
    seen.update(extra_args)
    return updates, state

  spy = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), look)
  _trace_with_more(make(inner=optax.chain(spy, _inner(make))))
  assert {'grad', 'unheard_of'} <= seen.keys(), f'inner saw only {list(seen)}'


def without_parameters_the_message_is_optax_s(make):
  """Unless it can do without them."""
  tx, params = make(), layer()
  try:
    tx.update(params, tx.init(params), **extra_arguments(params))
    said = NO_PARAMS_MSG
  except ValueError as error:
    said = str(error)
  assert said == NO_PARAMS_MSG, f'without params it says: {said}'


def in_a_chain_it_is_the_same(make):
  alone = trial(make)
  links = ('ahead', optax.identity()), ('link', alone.jitted)
  chained = run(optax.chain(*(link for _, link in links)), layer())
  named = run(optax.named_chain(*links), layer())
  for one, two, expected in zip(chained, named, alone.history, strict=True):
    chex.assert_trees_all_equal(Moment(*one[:2], one.state[1]), expected)
    chex.assert_trees_all_equal(Moment(*two[:2], two.state['link']), expected)


def under_masked_a_leaf_is_left_out(make):
  """What is left out stays as it came, what is left is as if it were alone."""
  _only_the_first_of_two_layers(make, optax.masked(_link_under_masks(make), _is_first))


def in_a_partition_every_part_has_its_own(make):
  links = {True: _link_under_masks(make), False: optax.identity()}
  _only_the_first_of_two_layers(make, optax.partition(links, _is_first))


def a_whole_branch_may_be_left_out(make):
  """As one hole for the branch, and not one for each of its leaves."""
  tx = optax.masked(make(), {'first': True, 'second': False})
  with required('with a branch left out'):
    jax.eval_shape(lambda params: run(tx, params)[-1].params, _two_layers())


def every_kind_of_tree_is_taken(make):
  params = every_kind_of_tree()
  with required('on a tree of every kind'):
    before, *_, after = run(jitted(make()), params)
  chex.assert_trees_all_equal_shapes_and_dtypes(after.params, before.params)
  chex.assert_trees_all_equal_shapes_and_dtypes(after.updates, before.params)
  chex.assert_trees_all_equal_shapes_and_dtypes(after.state, before.state)
  chex.assert_tree_all_finite(after.params)


def the_state_holds_no_none(make):
  for moment in trial(make).history:
    paths, _ = jax.tree_util.tree_flatten_with_path(moment.state, is_leaf=lambda leaf: leaf is None)
    nones = [jax.tree_util.keystr(path) for path, leaf in paths if leaf is None]
    assert not nones, f'None in the state at {", ".join(nones)}'


def the_state_comes_back_from_orbax(make):
  """And goes on from there to the bit."""
  alone = trial(make)
  saved = alone.history[2]._replace(updates=optax.EmptyState())
  with (
    required('with Orbax'),
    tempfile.TemporaryDirectory() as directory,
    ocp.StandardCheckpointer() as checkpointer,
  ):
    checkpointer.save(f'{directory}/state', saved)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(f'{directory}/state', jax.tree.map(jnp.zeros_like, saved))
  chex.assert_trees_all_equal_shapes_and_dtypes(restored, saved)
  restored = jax.tree.map(jnp.asarray, jax.device_get(restored))
  going_on = run(alone.jitted, restored.params, state=restored.state, first=2)
  chex.assert_trees_all_equal(going_on[1:], alone.history[3:])


def bfloat16_is_taken(make):
  with required('in bfloat16'):
    before, *_, after = run(jitted(make()), layer(jnp.bfloat16))
  chex.assert_trees_all_equal_shapes_and_dtypes(after.params, before.params)
  chex.assert_trees_all_equal_shapes_and_dtypes(after.state, before.state)
  chex.assert_tree_all_finite(after.params)


def no_dtype_is_promoted_silently(make):
  """Unless that is the inner link's doing, as it is Adam's."""
  for dtype in (jnp.float32, jnp.bfloat16):
    params = layer(dtype)
    with jax.numpy_dtype_promotion('strict'):
      if _inner(make) and not _takes_strictly(_inner(make), params):
        continue
      with required(f'with strict promotion of {dtype.__name__}'):
        jax.eval_shape(functools.partial(run, make()), params)


def _takes_strictly(tx, params) -> bool:
  try:
    jax.eval_shape(functools.partial(run, optax.with_extra_args_support(tx)), params)
  except ValueError as error:  # whose own class the lowest JAX that is supported keeps private
    if 'dtype promotion' not in str(error):
      raise
    return False
  return True


def the_state_can_be_donated(make):
  """From the first update on: the state shares no buffer with the parameters."""
  alone, params = trial(make), layer()
  grad = gradient(params, 0)
  state = alone.tx.init(params)
  with required('with the state donated'):
    _, state = alone.jitted.update(descent(grad), state, params, **extra_arguments(grad))
  chex.assert_trees_all_equal(state, alone.history[1].state)


POINTS = (
  the_state_is_a_named_tuple,
  structure_shapes_and_dtypes_are_kept,
  it_runs_in_a_loop_on_the_device,
  without_jit_it_is_the_same,
  replicas_stay_identical,
  it_is_compiled_once,
  unknown_extra_arguments_are_accepted,
  extra_arguments_reach_the_inner_links,
  without_parameters_the_message_is_optax_s,
  in_a_chain_it_is_the_same,
  under_masked_a_leaf_is_left_out,
  in_a_partition_every_part_has_its_own,
  a_whole_branch_may_be_left_out,
  every_kind_of_tree_is_taken,
  the_state_holds_no_none,
  the_state_comes_back_from_orbax,
  bfloat16_is_taken,
  no_dtype_is_promoted_silently,
  the_state_can_be_donated,
)

# Those that compile a program of their own, and so take longer.
COSTLY = (replicas_stay_identical, every_kind_of_tree_is_taken, bfloat16_is_taken)
