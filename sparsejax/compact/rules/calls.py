"""Programs within a program: calls with their own derivative, and scans over layers."""

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.compact.rules.rule import Rule, pin_all
from sparsejax.compact.trace.known import Known, join, unknown


def call_axes(graph, eqn, ins):
  if eqn.inner is None or eqn.tangents is None:
    return pin_all(graph, eqn, ins)
  outs = graph.run(eqn.inner, ins)
  derived = graph.run(eqn.tangents, [*ins, *ins], strict=True)
  for axes, other in zip([*outs, *outs], derived, strict=True):
    graph.labels.union_axes(axes, other)
  return outs


def call_known(constants, eqn, ins):
  if eqn.inner is None:
    return [unknown(shape) for shape in eqn.out_shapes]
  return constants.run(eqn.inner, ins)


def call(small, eqn, values):
  """Evaluates a custom_jvp call, with its own derivative."""
  if eqn.inner is None:
    return eqn.bind(values)

  @jax.custom_jvp
  def function(*given):
    return small.run(eqn.inner, given)

  @function.defjvp
  def _(primals, tangents):
    found = small.run(eqn.tangents, [*primals, *tangents])
    return function(*primals), found[len(eqn.outs) :]

  return function(*values)


# Scan


def _parts(eqn, ins):
  first = eqn.params['num_consts']
  last = first + eqn.params['num_carry']
  return list(ins[:first]), list(ins[first:last]), list(ins[last:])


def scan_axes(graph, eqn, ins):
  """Follows the body once: all layers share its axes, so an index is removed from all or none."""
  consts, carried, rest = _parts(eqn, ins)
  for axes in rest:
    graph.labels.pin(axes[0], eqn.name)
  outs = graph.run(eqn.inner, [*consts, *carried, *(axes[1:] for axes in rest)])
  for before, after in zip(carried, outs, strict=False):
    graph.labels.union_axes(before, after)
  stacked = outs[len(carried) :]
  length = eqn.params['length']
  return [*carried, *([graph.labels.pinned(length, eqn.name), *axes] for axes in stacked)]


def scan_known(constants, eqn, ins):
  consts, carried, rest = _parts(eqn, ins)
  steps = [_any_step(one) for one in rest]
  while True:
    outs = constants.run(eqn.inner, [*consts, *carried, *steps])
    joined = [join(*pair) for pair in zip(carried, outs, strict=False)]
    if all(np.array_equal(*_varying(*pair)) for pair in zip(joined, carried, strict=True)):
      break
    carried = joined
  stacked = [_stacked(out, eqn.params['length']) for out in outs[len(carried) :]]
  return [*carried, *stacked]


def _varying(one: Known, other: Known):
  return np.broadcast_arrays(one.varies, other.varies)


def _any_step(one: Known) -> Known:
  """Returns what is known of a scanned input at every step."""
  value = one.value[:1]
  varies = (one.varies | (one.value != value)).any(0)
  return Known(value[0], varies, one.shape[1:])


def _stacked(one: Known, length: int) -> Known:
  return Known(one.value[None], one.varies[None], (length, *one.shape))


def scan(small, eqn, values):
  consts, carried, rest = _parts(eqn, values)

  def body(carry, taken):
    outs = small.run(eqn.inner, [*consts, *carry, *taken])
    return outs[: len(carry)], outs[len(carry) :]

  carried = [jnp.asarray(value) for value in carried]
  settings = {name: eqn.params[name] for name in ('length', 'reverse', 'unroll')}
  carried, stacked = jax.lax.scan(body, carried, rest, **settings)
  return [*carried, *stacked]


RULES = {
  'custom_jvp_call': Rule(call_axes, call_known, call),
  'scan': Rule(scan_axes, scan_known, scan),
}
