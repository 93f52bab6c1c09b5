"""Capture: batches pass through a network, and stop at each layer for the moments of its inputs.

The network is any function of (params, batch). It is traced once for each shape of a batch, and run
equation by equation, as JAX does outside of `jit`. So all layers together take a single forward
pass, and each layer's inputs come from the layers before it as they have become. What is held for
each batch is what the rest of the network needs at one point, as a rule one activation; a layer's
inputs are reduced to moments at once.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sparsejax.second_order.kernel_products import (
  Product,
  dependent_values,
  find_products,
  live_equations,
)
from sparsejax.second_order.moments import Moments, moments_of
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.program import traced
from sparsejax.sparsity.program.equations import flatten

Values = dict[int, jax.Array]


class Layer(NamedTuple):
  """The weights of one matrix in a network: a leaf, or a part of it.

  Attributes:
    path: the path of the leaf.
    number: which part of the leaf it is, 0 if it is all of it.
    places: int32, (stack, groups, outputs, inputs), the place in the flat leaf of each weight.
  """

  path: str
  number: int
  places: np.ndarray


class _Program:
  """A function traced for one shape of batch, which runs from any of its equations to another."""

  def __init__(self, function, params, batch, paths: Iterable[str]):
    trace = flatten(traced(function, params, batch)[0], primal=True)
    named = tree.named_leaves(params)
    numbers = dict(zip(named, trace.program.ins, strict=False))
    self.constants = trace.constants
    self.parameters = list(numbers.values())
    self.inputs = trace.program.ins[len(named) :]
    self.equations = live_equations(trace)
    self.dependent = dependent_values(trace, self.equations, len(named))
    kernels = {numbers[path]: (path, jnp.shape(named[path])) for path in paths}
    self.products = find_products(self.equations, kernels, self.dependent)
    self.last_use = {n: at for at, eqn in enumerate(self.equations) for n in eqn.ins}

  def start(self, batch: Any) -> Values:
    """Returns the values that a batch begins with."""
    values = dict(zip(self.inputs, map(jnp.asarray, jax.tree.leaves(batch)), strict=True))
    return self._still_needed(values, 0)

  def advance(self, leaves: Sequence[jax.Array], values: Values, start: int, stop: int) -> Values:
    """Returns the values that the rest of the program needs from the equations before `stop`."""
    env = {**self.constants, **dict(zip(self.parameters, leaves, strict=True)), **values}
    ours = [eqn for eqn in self.equations[start:stop] if self.dependent & set(eqn.outs)]
    for eqn in [*self._of_parameters(ours), *ours]:
      env |= zip(eqn.outs, eqn.bind([env[number] for number in eqn.ins]), strict=True)
    return self._still_needed({n: env[n] for n in env if n in self.dependent}, stop)

  def _of_parameters(self, equations) -> list[Any]:
    """Returns the equations of parameters alone whose results these equations need, in order."""
    needed = {number for eqn in equations for number in eqn.ins}
    found = []
    for eqn in reversed(self.equations):
      if needed & set(eqn.outs) and not self.dependent & set(eqn.outs):
        needed |= set(eqn.ins)
        found.append(eqn)
    return found[::-1]

  def _still_needed(self, values: Values, at: int) -> Values:
    return {n: value for n, value in values.items() if self.last_use.get(n, -1) >= at}


class _Pass(NamedTuple):
  """A batch on its way: its program, the next equation, and the values that the rest needs."""

  program: _Program
  at: int
  values: Values

  def advance(self, leaves: Sequence[jax.Array], stop: int) -> '_Pass':
    return self._replace(at=stop, values=self.program.advance(leaves, self.values, self.at, stop))


class Capture:
  """Batches on their way through a network, and the layers that they meet.

  Attributes:
    layers: the layers in the order in which the network first uses them.

  Args:
    function: a function of (params, batch), deterministic, such as a network in evaluation mode.
    params: a pytree of arrays.
    batches: pytrees of arrays.
    paths: the paths of the kernels.

  Raises:
    ValueError: if there is no batch, or a kernel is used other than in products with activations.
  """

  def __init__(self, function, params: Any, batches: Iterable[Any], paths: Sequence[str]):
    programs: dict[Any, _Program] = {}
    self._passes = []
    for batch in batches:
      leaves, structure = jax.tree.flatten(batch)
      key = structure, tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)
      if key not in programs:
        programs[key] = _Program(function, params, batch, paths)
      self._passes.append(_Pass(programs[key], 0, programs[key].start(batch)))
    if not programs:
      raise ValueError('batches is empty; give one batch or more')
    products = {key: _by_layer(program.products) for key, program in programs.items()}
    first, *others = products.values()
    if any(_names(other) != _names(first) for other in others):
      raise ValueError('batches of different shapes must use the same layers in the same order')
    self.layers = [layer for layer, _ in first]
    self._products = {
      (id(programs[key]), layer.path, layer.number): found
      for key, by_layer in products.items()
      for layer, found in by_layer
    }

  def moments(self, layer: Layer, params: Any, *, diagonal: bool = False) -> Moments:
    """Returns the moments of a layer's inputs, and stops there.

    Layers must be asked for in order. Inputs come from the layers before, with the given
    parameters; a layer that is used several times sums the moments of all its inputs.

    Args:
      layer: one of `layers`.
      params: the parameters, in the structure of those at first, with changes to layers before.
      diagonal: whether only the diagonal of the moments is wanted.
    """
    leaves = list(tree.named_leaves(params).values())
    total = None
    for i, one in enumerate(self._passes):
      first, *later = self._products[id(one.program), layer.path, layer.number]
      self._passes[i] = ahead = one.advance(leaves, first.at)
      found = [_moments(ahead, first, diagonal)]
      for product in later:
        ahead = ahead.advance(leaves, product.at)
        found.append(_moments(ahead, product, diagonal))
      for part in found:
        total = part if total is None else jax.tree.map(jnp.add, total, part)
    assert total is not None
    return total


def _moments(one: _Pass, product: Product, diagonal: bool) -> Moments:
  return _reduced(product.rows, one.values[product.activation], diagonal)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _reduced(rows, activation, diagonal):
  # Cast first, so that patches are not summed in a narrow dtype.
  return moments_of(rows(activation.astype(jnp.float32)), diagonal=diagonal)


def _by_layer(products: Sequence[Product]) -> list[tuple[Layer, list[Product]]]:
  """Returns the layers, each with its products in order.

  Products with the same weights in the same arrangement are one layer.

  Raises:
    ValueError: if products share some weights of a leaf and not others.
  """
  found: list[tuple[Layer, list[Product]]] = []
  for product in products:
    same = [
      uses
      for layer, uses in found
      if layer.path == product.path and np.array_equal(layer.places, product.places)
    ]
    if same:
      same[0].append(product)
    else:
      number = sum(layer.path == product.path for layer, _ in found)
      found.append((Layer(product.path, number, product.places), [product]))
  _check_apart([layer for layer, _ in found])
  return found


def _check_apart(layers: Sequence[Layer]) -> None:
  places: Mapping[str, list[np.ndarray]] = {}
  for layer in layers:
    places = {**places, layer.path: [*places.get(layer.path, []), layer.places.ravel()]}
  for path, parts in places.items():
    together = np.concatenate(parts)
    if len(parts) > 1 and len(np.unique(together)) < len(together):
      raise ValueError(
        f"'{path}' is used in products that share only some of its weights, or arrange them "
        'otherwise, as an embedding that is also the last layer: exclude it'
      )


def _names(by_layer) -> list[tuple[str, int]]:
  return [(layer.path, layer.number) for layer, _ in by_layer]
