"""Measures the cost of masks: after an optimizer, at an update, under vmap, on several devices.

python -m tools.costs.mask_costs [--millions=100] [--out=results/mask_costs]

Ratios are medians over rounds in which the programs are timed in turns in one process; the memory
that XLA reserves comes from its own account of the compiled step. Devices are forced CPU devices.
The program writes mask_costs.json and the page made from it.
"""

import argparse
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import sparsejax
from sparsejax import criteria, update_rules
from sparsejax.experiment.machine import provenance
from sparsejax.internal import timing
from sparsejax.reports.text.markdown import table
from tools import ROOT
from tools.costs import places

LAYERS, ROUNDS, MEMBERS = 24, 5, 8
NEVER = 10**6  # a step that is never reached
FILE = 'mask_costs.json'
METHODS = {
  'magnitude': {},
  'saliency': {'criterion': criteria.saliency},
  'magnitude, uniform': {'allocation': sparsejax.allocation.uniform()},
  'LAMP': {'criterion': criteria.lamp},
  'RigL around SGD': {'update_rule': update_rules.rigl(NEVER), 'inner': optax.sgd(0.1)},
}


def network(millions: float, stacked: bool = False, layers: int = LAYERS) -> dict:
  """Returns the kernels of blocks of two layers, each in its own leaf or stacked by kind."""
  width = round((millions * 1e6 / (layers * 8)) ** 0.5) // 8 * 8
  shapes = {'up': (width, 4 * width), 'down': (4 * width, width)}
  if stacked:
    shapes = {name: (layers, *shape) for name, shape in shapes.items()}
    return {n: {'kernel': jax.random.normal(jax.random.key(0), s)} for n, s in shapes.items()}
  keys = iter(jax.random.split(jax.random.key(0), 2 * layers))
  return {
    f'block{i}': {n: {'kernel': jax.random.normal(next(keys), s)} for n, s in shapes.items()}
    for i in range(layers)
  }


STACK = {'': 'stack in out'}


def stepping(transformation, params, grad):
  """Returns (steps -> seconds) for update and apply_updates, donating the state each time."""

  @functools.partial(jax.jit, donate_argnums=(0, 1))
  def step(params, state, grad):
    changes, state = transformation.update(grad, state, params, grad=grad)
    return optax.apply_updates(params, changes), state

  held = [jax.tree.map(jnp.copy, params), transformation.init(params)]

  def run(steps: int) -> float:
    begun = time.perf_counter()
    for _ in range(steps):
      held[:] = step(*held, grad)
    jax.block_until_ready(held)
    return time.perf_counter() - begun

  return run


def beside_adam(millions: float) -> dict:
  """The time of an Adam step with masks over one without, while no mask update is due."""
  params = network(millions)
  grad = jax.tree.map(lambda p: 0.1 * p, params)
  masked = optax.chain(optax.adam(1e-3), sparsejax.prune(sparsejax.one_shot(NEVER, 0.1)))
  timed = {'adam': optax.adam(1e-3), 'adam and prune': masked}
  timed = {name: stepping(tx, params, grad) for name, tx in timed.items()}
  found = timing.alternate(timed, rounds=ROUNDS, seconds=2.0, note=_say)
  ratio = timing.median_ratio(found['adam and prune'], found['adam'])
  return {'parameters': _size(params), 'seconds': found, 'ratio': ratio}


def renewals(millions: float) -> list[dict]:
  """The memory of a mask update besides parameters, gradients and state, and its time."""
  rows = []
  for name, parts in METHODS.items():
    for stacked in (False, True):
      params = network(millions, stacked)
      told = {'layouts': STACK} if stacked else {}
      tx = sparsejax.prune(sparsejax.one_shot(0, 0.1), **told, **parts)
      step = jax.jit(lambda g, s, p, tx=tx: tx.update(g, s, p, grad=g), donate_argnums=(0, 1))
      state = tx.init(params)
      compiled = step.lower(params, state, params).compile()
      reserved = compiled.memory_analysis().temp_size_in_bytes
      grad = jax.tree.map(lambda p: 0.1 * p, params)
      begun = time.perf_counter()
      jax.block_until_ready(compiled(grad, state, params))
      rows.append(
        {
          'method': name,
          'stacked': stacked,
          'bytes': reserved / _size(params),
          'seconds': time.perf_counter() - begun,
        }
      )
      _say(rows[-1])
  return rows


def ensemble() -> dict:
  """The time of eight members in one vmap over that of the members one by one, nothing due."""
  tx = optax.chain(optax.adam(1e-3), sparsejax.prune(sparsejax.one_shot(NEVER, 0.1)))
  member = {'fc1': {'kernel': jnp.ones((784, 300))}, 'fc2': {'kernel': jnp.ones((300, 100))}}
  together = jax.tree.map(lambda p: jnp.stack([p] * MEMBERS), member)

  def step(params, state):
    changes, state = tx.update(params, state, params)
    return optax.apply_updates(params, changes), state

  one, many = jax.jit(step), jax.jit(jax.vmap(step))
  state, states = tx.init(member), jax.vmap(tx.init)(together)

  def repeated(step, calls, *arguments):
    def run(steps: int) -> float:
      begun = time.perf_counter()
      for _ in range(steps * calls):
        jax.block_until_ready(step(*arguments))
      return time.perf_counter() - begun

    return run

  timed = {
    'one by one': repeated(one, MEMBERS, member, state),
    'vmap': repeated(many, 1, together, states),
  }
  found = timing.alternate(timed, rounds=ROUNDS, seconds=1.0, note=_say)
  ratio = timing.median_ratio(found['vmap'], found['one by one'])
  return {'members': MEMBERS, 'seconds': found, 'ratio': ratio}


def on_mesh(devices: int, kind: str, millions: float) -> dict:
  """Whether masks on a mesh equal those on one device, and the most bytes that are gathered."""
  mesh = jax.make_mesh((devices,), ('model',), axis_types=(AxisType[kind],))
  params = network(millions, layers=4)  # each count waits for all devices, which share two cores
  tx = sparsejax.prune(sparsejax.one_shot(0, 0.1))

  def masks(params):
    return tx.update(params, tx.init(params), params)[1].masks

  alone = jax.jit(masks)(params)
  spread = jax.device_put(params, NamedSharding(mesh, P(None, 'model')))
  with jax.set_mesh(mesh):
    compiled = jax.jit(masks).lower(spread).compile()
    there = compiled(spread)
  equal = jax.tree.map(lambda a, b: bool((a == jax.device_get(b)).all()), alone, there)
  gathered = re.findall(r'= (\w+)\[([\d,]*)\][^=]* all-gather', compiled.as_text())
  sizes = [_bytes(*one) for one in gathered]
  return {
    'devices': devices,
    'mesh': kind.lower(),
    'equal': all(jax.tree.leaves(equal)),
    'largest_gather': max(sizes, default=0),
    'largest_leaf': max(leaf.nbytes for leaf in jax.tree.leaves(params)),
  }


def _bytes(dtype: str, shape: str) -> int:
  count = 1
  for size in filter(None, shape.split(',')):
    count *= int(size)
  return count * (1 if dtype == 'pred' else int(re.sub(r'\D', '', dtype)) // 8)


def _of_a_child(devices: int, kind: str, millions: float) -> dict:
  """Calls `on_mesh` in a separate process with that many devices."""
  command = [sys.executable, '-m', 'tools.costs.mask_costs', f'--mesh={devices}', f'--kind={kind}']
  command.append(f'--millions={millions}')
  env = os.environ | places.environment(places.Place('', 1, devices, devices))
  done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
  return json.loads(done.stdout.splitlines()[-1])


def page(found: dict) -> str:
  """Returns the page in Markdown."""
  at, adam, vmap = found['environment'], found['beside_adam'], found['ensemble']
  lines = [
    '# What masks cost',
    '',
    f'Made by `tools/costs/mask_costs.py`, on {at["cpus"]} cores of {at["processor"]}, JAX '
    f'{at["versions"]["jax"]}, float32, beside other work. {adam["parameters"] / 1e6:.1f} million '
    f'parameters in {LAYERS} blocks of two layers.',
    '',
    f'While no mask update is due (medians of {ROUNDS} rounds):',
    '',
    f'- A step of Adam with `prune` after it takes {adam["ratio"]:.2f} of the time without.',
    f'- {vmap["members"]} members in one `vmap` take {vmap["ratio"]:.2f} of the time of the '
    'members one by one.',
    '',
    '## A mask update',
    '',
    'The bytes per parameter that XLA reserves in addition to parameters, gradients and the '
    "chain's state, and the time. Layers have leaves of their own (apart), or are stacked in two "
    'leaves.',
    '',
  ]
  rows = [
    f'{row["method"]} | {"stacked" if row["stacked"] else "apart"} | {row["bytes"]:.1f} | '
    f'{row["seconds"]:.1f} s'
    for row in found['renewals']
  ]
  lines += [*table('method | layers | bytes | time', rows), '', '## Several devices', '']
  lines += [
    'On forced devices of this CPU, with kernels split along their outputs: whether the masks '
    'equal those of one device, and the most bytes that are gathered at once.',
    '',
  ]
  rows = [
    f'{row["devices"]} | {row["mesh"]} | {"yes" if row["equal"] else "NO"} | '
    f'{row["largest_gather"]:,} | {row["largest_leaf"]:,}'
    for row in found['meshes']
  ]
  head = 'devices | mesh | equal | bytes gathered | bytes of a leaf'
  return '\n'.join([*lines, *table(head, rows), ''])


def _size(params) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _say(line) -> None:
  print(line, file=sys.stderr, flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--millions', type=float, default=100.0)
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('results/mask_costs'))
  parser.add_argument('--mesh', type=int, help=argparse.SUPPRESS)
  parser.add_argument('--kind', help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.mesh:
    print(json.dumps(on_mesh(arguments.mesh, arguments.kind, arguments.millions)))
    return
  found = {
    'environment': provenance.environment(),
    'beside_adam': beside_adam(arguments.millions),
    'renewals': renewals(arguments.millions),
    'ensemble': ensemble(),
    'meshes': [
      _of_a_child(devices, kind, arguments.millions / 10)
      for devices in (4, 8)
      for kind in ('Explicit', 'Auto')
    ],
  }
  arguments.out.mkdir(exist_ok=True)
  (arguments.out / FILE).write_text(json.dumps(found, indent=2) + '\n')
  (arguments.out / 'README.md').write_text(page(found))


if __name__ == '__main__':
  main()
