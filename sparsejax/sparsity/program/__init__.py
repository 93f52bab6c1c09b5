"""What a function does with each parameter, read off its jaxpr: layouts and multiply-accumulates.

Every axis of every value is a node. Where values meet entry by entry their nodes become one; a
product makes nodes of its own for what comes out, linked to the axes of the kernel that they come
from. An axis of a kernel is an input where it is summed over, an output where it goes on, a
position of a convolution, a stack where a scan runs along it or a product takes it pairwise. It is
a head where what it became is taken pairwise by a product of two activations.

What is counted is exact, or refused: a primitive that nobody knows, a product of two parameters, a
part of a kernel that is applied more often than the rest. What nobody reads is not counted, as XLA
does not compute it.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.sparsity.leaves import kinds, tree
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.program.layouts import layout_of
from sparsejax.sparsity.program.reader import Graph, Reader
from sparsejax.sparsity.program.rules.nodes import GIVEN, KERNEL, PARAM, Value, fresh


def read(function: Callable[..., Any], params: Any, *examples: Any, dead: bool = True) -> Graph:
  """Returns what a function of (params, *examples) does with its parameters.

  Args:
    function: traced, never run.
    dead: whether to read what nobody asks for too: it says what axes are, and costs nothing.
    params: a pytree of arrays, or of their shapes.
    examples: arrays, or their shapes, in whatever structure the function takes.
  """
  choice = sys.modules.get('sparsejax.cpu_conv.choice')  # of nobody who has not imported it
  with choice.plain() if choice else contextlib.nullcontext():
    closed = jax.make_jaxpr(function)(params, *examples)
  shapes = {path: jnp.shape(leaf) for path, leaf in tree.named_leaves(params).items()}
  graph = Graph({path: fresh(shape, PARAM).axes for path, shape in shapes.items()})
  nodes = kinds.equinox_nodes(params)
  given = [
    Value(axes, KERNEL if kinds.kind(path, shapes[path], nodes) == kinds.KERNEL else PARAM)
    for path, axes in graph.leaves.items()
  ]
  given += [fresh(var.aval.shape, GIVEN) for var in closed.jaxpr.invars[len(given) :]]
  Reader(graph).run(closed.jaxpr if dead else _without_dead_code(closed.jaxpr), given, 1)
  return graph


def _without_dead_code(jaxpr: Any) -> Any:
  """A jaxpr without equations that nobody reads; itself where a later JAX can't tell."""
  try:
    from jax.interpreters.partial_eval import dce_jaxpr
  except ImportError:
    return jaxpr
  return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), True)[0]


def layouts_of(function: Callable[..., Any], params: Any, *examples: Any) -> dict[str, Layout]:
  """Returns the layout of every parameter whose axes a function shows, for `layouts=`.

  The function is traced, not run: shapes are enough. What it does tells exactly which axes of a
  kernel are inputs, outputs, positions, heads, and stacks of layers, whatever library made it.

  Args:
    function: takes (params, *examples), such as `lambda p, x: model.apply({'params': p}, x)`.
    params: a pytree of arrays, or of their shapes.
    examples: what else the function takes.

  Returns:
    {expression that matches one path: layout}. A parameter that is used in two ways at once, as a
    table that is also the last layer, is left out, and so is a matrix that multiplies activations
    entry by entry.

  Example:
    >>> def function(params, x):
    ...   return jax.nn.relu(x @ params['a'].T) @ params['b']
    >>> params = {'a': jnp.ones((5, 3)), 'b': jnp.ones((5, 2))}
    >>> [layout.text for layout in layouts_of(function, params, jnp.ones((1, 3))).values()]
    ['out in', 'in out']
  """
  found, graph = {}, read(function, params, *examples)
  for path, nodes in graph.leaves.items():
    if path not in graph.entrywise and (layout := layout_of(nodes)) is not None:
      found[f'^{re.escape(path)}$'] = layout
  return found


def positions_of(function: Callable[..., Any], params: Any, *examples: Any) -> dict[str, int]:
  """Returns how often a function applies each weight of a parameter to the examples, by path.

  For `sparsity_report` and `prune_to(macs=...)`; give a batch of one to count for one example.

  Raises:
    ValueError: a number of repetitions that the program does not fix.

  Example:
    >>> positions_of(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 2))}, jnp.ones((7, 3)))
    {'w': 7}
  """
  return counts(function, params, *examples)[0]


def counts(function: Callable[..., Any], params: Any, *examples: Any) -> tuple[dict[str, int], int]:
  """Returns `positions_of`, in the program's order, and what products without a parameter cost.

  Raises:
    ValueError: a number of repetitions that the program does not fix.
  """
  graph = read(function, params, *examples, dead=False)
  found = {path: graph.positions(path) for path in [*graph.uses, *graph.leaves] if graph.size(path)}
  if why := graph.unknown or _unlike(graph, found):
    raise ValueError(f'multiply-accumulates are not known: {why}')
  return {path: positions or 0 for path, positions in found.items()}, graph.products


def _unlike(graph: Graph, found: Mapping[str, int | None]) -> str:
  """Why the weights of a parameter have no one number of positions; '' where each has."""
  for path in graph.leaves:
    if path in graph.entrywise:
      return f"'{path}' multiplies activations entry by entry"
    if path in found and found[path] is None:
      return f"some weights of '{path}' are applied more often than others"
  return ''
