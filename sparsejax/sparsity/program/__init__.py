"""The use of each parameter in a function, read off its jaxpr: layouts, multiply-accumulates.

Every axis of every value is a node, and an elementwise operation makes the axes that it aligns one
node. A product gives each axis of its kernel a role, from what `dot_general` does with it:

  in        it is contracted
  out       it goes on to the result
  position  it is a position in the window of a convolution
  stack     it is a batch dimension, or a scan runs along it
  head      it is an input or output that becomes a batch dimension of a product of two activations

Multiply-accumulates are exact, or they are refused: for a primitive that may hide a product, for a
product of two parameters, or for a kernel with one part that is applied more often than another.
Products whose results are not used are not counted, since XLA does not compute them.
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
from sparsejax.sparsity.program.layout_inference import build_layout
from sparsejax.sparsity.program.reader import Graph, Reader
from sparsejax.sparsity.program.rules.nodes import INPUT, KERNEL, PARAM, Value, new_value


def read(function: Callable[..., Any], params: Any, *examples: Any, dead: bool = True) -> Graph:
  """Returns the graph of how a function of (params, *examples) uses its parameters.

  Args:
    function: the function, which is traced and never run.
    params: a pytree of arrays, or of their shapes.
    examples: arrays, or their shapes, in whatever structure the function takes.
    dead: whether to read also the equations whose results are not used: they show roles of axes,
      but must not be counted.
  """
  closed, _ = traced(function, params, *examples)
  shapes = {path: jnp.shape(leaf) for path, leaf in tree.named_leaves(params).items()}
  graph = Graph({path: new_value(shape, PARAM).axes for path, shape in shapes.items()})
  equinox_nodes = kinds.equinox_nodes(params)
  ins = []
  for path, axes in graph.parameters.items():
    is_kernel = kinds.kind(path, shapes[path], equinox_nodes) == kinds.KERNEL
    ins.append(Value(axes, KERNEL if is_kernel else PARAM))
  ins += [new_value(var.aval.shape, INPUT) for var in closed.jaxpr.invars[len(ins) :]]
  Reader(graph).run(closed.jaxpr if dead else _remove_dead_code(closed.jaxpr), ins, 1)
  return graph


def traced(function: Callable[..., Any], params: Any, *examples: Any) -> tuple[Any, Any]:
  """Returns the closed jaxpr of a function of (params, *examples), and the shapes of its results.

  The fast CPU convolutions of this package are traced as plain ones. JAX caches the jaxpr of a
  function that it has traced before, so the function is wrapped to be traced again.
  """
  choice = sys.modules.get('sparsejax.cpu_conv.choice')  # if it was not imported, none are in use
  with choice.plain() if choice else contextlib.nullcontext():
    trace = jax.make_jaxpr(lambda *given: function(*given), return_shape=True)
    return trace(params, *examples)


def _remove_dead_code(jaxpr: Any) -> Any:
  """Returns a jaxpr without the equations whose results are not used.

  If the JAX release has moved `dce_jaxpr`, the jaxpr is returned as it is.
  """
  try:
    from jax.interpreters.partial_eval import dce_jaxpr
  except ImportError:
    return jaxpr
  return dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), True)[0]


def layouts_of(function: Callable[..., Any], params: Any, *examples: Any) -> dict[str, Layout]:
  """Returns the layout of every parameter whose axes a function shows, for `layouts=`.

  The function is traced, not run: shapes are enough. Its products show exactly which axes of a
  kernel are inputs, outputs, positions, heads, and stacks of layers, whatever library made it.

  Args:
    function: takes (params, *examples), such as `lambda p, x: model.apply({'params': p}, x)`.
    params: a pytree of arrays, or of their shapes.
    examples: the other arguments of the function.

  Returns:
    {regular expression that matches one path: layout}. A parameter that is used in two ways at
    once, such as an embedding that is also the last layer, is left out, and so is a matrix that
    multiplies activations elementwise.

  Example:
    >>> def function(params, x):
    ...   return jax.nn.relu(x @ params['a'].T) @ params['b']
    >>> params = {'a': jnp.ones((5, 3)), 'b': jnp.ones((5, 2))}
    >>> [layout.text for layout in layouts_of(function, params, jnp.ones((1, 3))).values()]
    ['out in', 'in out']
  """
  graph = read(function, params, *examples)
  layouts = {}
  for path, axes in graph.parameters.items():
    layout = build_layout(axes)
    if layout is not None and path not in graph.elementwise:
      layouts[f'^{re.escape(path)}$'] = layout
  return layouts


def positions_of(function: Callable[..., Any], params: Any, *examples: Any) -> dict[str, int]:
  """Returns the number of times that a function applies each weight of a parameter, by path.

  `sparsity_report` and `prune_to(macs=...)` take the result as `positions`. Give a batch of one to
  count for one example.

  Args:
    function: takes (params, *examples), and is traced, not run.
    params: a pytree of arrays, or of their shapes.
    examples: the other arguments of the function.

  Raises:
    ValueError: the multiply-accumulates can't be counted exactly, as where a while loop has
      products.

  Example:
    >>> positions_of(lambda p, x: x @ p['w'], {'w': jnp.ones((3, 2))}, jnp.ones((7, 3)))
    {'w': 7}
  """
  return counts(function, params, *examples)[0]


def counts(function: Callable[..., Any], params: Any, *examples: Any) -> tuple[dict[str, int], int]:
  """Returns (positions, MACs of products without a parameter), with positions in program order.

  Raises:
    ValueError: the multiply-accumulates can't be counted exactly.
  """
  graph = read(function, params, *examples, dead=False)
  in_program_order = [*graph.uses, *graph.parameters]
  positions = {path: graph.positions(path) for path in in_program_order if graph.size(path)}
  if why := graph.refusal or _uneven_reason(graph, positions):
    raise ValueError(
      f"multiply-accumulates can't be counted: {why}; find out how often each kernel is applied, "
      'and give that as positions'
    )
  return {path: times or 0 for path, times in positions.items()}, graph.activation_macs


def _uneven_reason(graph: Graph, positions: Mapping[str, int | None]) -> str:
  """Returns why some parameter has no single number of positions; '' if every one has."""
  for path in graph.parameters:
    if path in graph.elementwise:
      return f"'{path}' multiplies activations elementwise"
    if path in positions and positions[path] is None:
      return f"some weights of '{path}' are applied more often than others"
  return ''
