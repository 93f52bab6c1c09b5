"""What a reader meets who follows `prune` from the call to a new mask."""

import os
import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsejax
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.mask_update import Renewal
from sparsejax.sparsity.parts import units
from sparsejax.sparsity.parts.granularity import SINGLE

ROOT = f'{pathlib.Path(sparsejax.__file__).parent}{os.sep}'
PARAMS = {
  'conv': {'kernel': jnp.ones((3, 3, 5, 7)), 'bias': jnp.zeros(7)},
  'norm': {'scale': jnp.ones(7), 'bias': jnp.zeros(7)},
  'head': {'kernel': jnp.arange(77.0).reshape(7, 11)},
}


def entered(call):
  """Returns {file: functions} of sparsejax that a call enters.

  A function is one that stands in a file or in a class by itself; what is written within it, as a
  loop's body or a comprehension is, is read with it.
  """
  found, before = {}, sys.getprofile()

  def note(frame, event, _):
    code = frame.f_code
    if event == 'call' and code.co_filename.startswith(ROOT):
      file = pathlib.Path(code.co_filename.removeprefix(ROOT)).as_posix()
      found.setdefault(file, set()).add(code.co_qualname.partition('.<locals>')[0])

  sys.setprofile(note)
  try:
    call()
  finally:
    sys.setprofile(before)
  return found


def pruned(schedule, **parts):
  """Traces an update that makes a mask."""
  tx = sparsejax.prune(schedule, **parts)
  return jax.eval_shape(tx.update, PARAMS, tx.init(PARAMS), PARAMS)


def test_the_way_from_prune_to_a_new_mask_is_short():
  schedule = sparsejax.one_shot(step=0, density=0.1)
  found = entered(lambda: pruned(schedule))
  assert 'keep_largest' in found['sparsity/parts/selection.py']  # to its end
  assert len(found) <= 6, sorted(found)
  functions = [f'{file}: {name}' for file, names in found.items() for name in names]
  assert len(functions) <= 20, sorted(functions)


@pytest.mark.parametrize(
  ('parts', 'file', 'function'),
  [
    ({'granularity': sparsejax.granularity.filters()}, 'sparsity/parts/units.py', 'units'),
    ({'exclude': 'head'}, 'sparsity/leaves/axes.py', 'choose'),
    ({'update_rule': sparsejax.update_rules.set_()}, 'sparsity/parts/update_rules.py', 'exchange'),
  ],
)
def test_what_is_not_usual_is_a_call_away(parts, file, function):
  schedule = sparsejax.one_shot(step=0, density=0.1)
  assert function in entered(lambda: pruned(schedule, **parts))[file]


SIZES = st.sampled_from([1, 3, 4, 12])
NAMES = st.sampled_from(['conv', 'fc', 'Dense_0', 'query', 'out', 'norm', 'layers_1'])
VECTORS = st.sampled_from(['bias', 'scale', 'step', 'pos_embedding'])


@st.composite
def networks(draw):
  """Modules with a kernel and what else they hold, some of them within another."""

  def leaf(smallest, largest):
    shape = draw(st.lists(SIZES, min_size=smallest, max_size=largest))
    return jax.ShapeDtypeStruct(tuple(shape), draw(st.sampled_from([jnp.float32, jnp.bfloat16])))

  found = {}
  for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
    module = {'kernel': leaf(2, 4)} if draw(st.booleans()) else {}
    rank = draw(st.sampled_from([1, 1, 1, 2]))
    module |= {vector: leaf(1, rank) for vector in draw(st.sets(VECTORS, max_size=2))}
    found[name] = {'inner': module} if draw(st.booleans()) else module
  return found


def units_or_refusal(call):
  try:
    return call()
  except ValueError as error:
    return str(error)


@settings(deadline=None, max_examples=200)
@given(networks())
def test_what_is_usual_is_what_the_layouts_say(params):
  """Wherever it is not asked, the layout of every kernel is known and stacks nothing."""
  schedule, nothing = sparsejax.one_shot(0, 0.5), {'granularity': None, 'allocation': None}
  magnitude = sparsejax.criteria.magnitude
  parts = Renewal.of(
    schedule, criterion=magnitude, exclude=(), layouts=None, floor=1, seed=0, **nothing
  )
  found = units_or_refusal(lambda: parts.units(params))
  asked = units_or_refusal(lambda: units.units(params, tree.choose(params, 'kernels'), SINGLE, ()))
  if isinstance(asked, str):
    assert found == asked
    return
  assert [unit.paths for unit in found] == [unit.paths for unit in asked]
  for unit, other in zip(found, asked, strict=True):
    assert unit.groups is not None or other.groups.leaves[0].layers == 1
    assert unit.groups is not None or unit.shape == other.groups.leaves[0].shape
