"""Reading a jaxpr once, equation by equation."""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

from jax.extend import core

from sparsejax.sparsity.program.rules import loops, products, scalars, shapes, slicing
from sparsejax.sparsity.program.rules.dependence import inner_jaxprs, is_called
from sparsejax.sparsity.program.rules.nodes import (
  ACTIVATION,
  CONSTANT,
  EXAMPLE_KINDS,
  INPUT,
  KERNEL,
  Node,
  Scalar,
  Value,
  align,
  derive_value,
  joint_kind,
  new_value,
  sizes,
)
from sparsejax.sparsity.program.rules.primitives import HARMLESS, KEEPS_A_KERNEL
from sparsejax.sparsity.program.uses import Use, positions, use_of_slices

# {primitive: rule}; a rule takes (reader, equation, operands, how often the equation runs) and
# returns the outputs.
RULES = shapes.RULES | slicing.RULES | products.RULES | loops.RULES

Counts = tuple[dict[str, list[Use]], int]  # `Graph.uses` and `Graph.activation_macs`


@dataclasses.dataclass
class Graph:
  """The uses of each parameter in a program.

  Attributes:
    parameters: the nodes of each parameter's axes, by path.
    uses: the products with each parameter, by path.
    activation_macs: the multiply-accumulates of products without a parameter.
    elementwise: the paths of kernels that multiply activations elementwise.
    refusal: why the multiply-accumulates can't be counted; '' where they can.
  """

  parameters: dict[str, list[Node]]
  uses: dict[str, list[Use]] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(list)
  )
  activation_macs: int = 0
  elementwise: set[str] = dataclasses.field(default_factory=set)
  refusal: str = ''

  def size(self, path: str) -> int:
    """Returns the number of a parameter's weights."""
    return math.prod(sizes(self.parameters[path]))

  def positions(self, path: str) -> int | None:
    """Returns the times that each weight of a parameter is applied, or None if they may differ."""
    return positions(self.uses[path], self.size(path))


class Reader:
  """Walks a jaxpr and records in a graph what it does with the parameters."""

  def __init__(self, graph: Graph):
    self.graph = graph

  def run(self, jaxpr, ins: Sequence[Value], times: int) -> list[Value]:
    """Returns the outputs of a jaxpr, and records its products as run `times` times."""
    env: dict[Any, Value] = dict(zip(jaxpr.invars, ins, strict=True))
    env |= {var: new_value(var.aval.shape, CONSTANT) for var in jaxpr.constvars}

    def value(atom) -> Value:
      return _literal(atom) if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
      outs = self._run_equation(eqn, [value(atom) for atom in eqn.invars], times)
      env |= dict(zip(eqn.outvars, outs, strict=True))
    return [value(atom) for atom in jaxpr.outvars]

  def _run_equation(self, eqn, ins: list[Value], times: int) -> list[Value]:
    name = eqn.primitive.name
    if (rule := RULES.get(name)) is not None:
      return rule(self, eqn, ins, times)
    for inner in inner_jaxprs(eqn):
      if is_called(eqn, inner):
        return self.run(inner, ins, times)
    if name not in HARMLESS and joint_kind(ins) != CONSTANT:
      self.refuse_to_count(f"the primitive '{name}' may hide products")
    in_shapes, out_shapes = _shapes(eqn.invars), _shapes(eqn.outvars)
    if len(out_shapes) > 1 and in_shapes == out_shapes:
      # Such a primitive, like optimization_barrier, hands on each operand by itself.
      pairs = zip(ins, out_shapes, strict=True)
      return [self._run_elementwise(name, [value], shape) for value, shape in pairs]
    return [self._run_elementwise(name, ins, shape) for shape in out_shapes]

  def _run_elementwise(self, name: str, ins: Sequence[Value], shape) -> Value:
    """Returns the output of an elementwise primitive, with its axes aligned to the operands'."""
    out = derive_value(ins, shape)
    if out.kind in EXAMPLE_KINDS and name in KEEPS_A_KERNEL:
      kernels = [value for value in ins if value.kind == KERNEL]
      has_kernel_shape = any(
        sizes(kernel.axes) == list(shape) and self._are_parameter_axes(kernel.axes)
        for kernel in kernels
      )
      if has_kernel_shape and (out.kind == INPUT or _scales_rows_or_columns(ins, shape)):
        out.kind = KERNEL  # masked by an input, or modulated by an activation
      elif has_kernel_shape or name == 'mul':
        self.graph.elementwise |= {path for kernel in kernels for path in self._matrices(kernel)}
    for value in ins:
      if len(value.axes) == len(out.axes):
        align(value, out)
    if not out.axes:
      out.scalar = scalars.evaluate(name, [value.scalar for value in ins])
    return out

  def _matrices(self, kernel: Value) -> list[str]:
    """Returns the parameters that a kernel is all or part of, if one layer of them is a matrix.

    The vectors that a scan takes from a stack of scales, (layers, features), are not matrices.
    """
    sliced = [taken.axis for taken in kernel.slices if taken.start is not None]
    scanned = [taken.axis for taken in kernel.slices if taken.start is None]
    kernel_nodes, scanned_nodes = _related_ids([*kernel.axes, *sliced]), _related_ids(scanned)
    paths = []
    for path, axes in self.graph.parameters.items():
      long = [axis for axis in axes if axis.size > 1]
      layer = [axis for axis in long if not _is_related(axis, scanned_nodes)]
      kernel_axes = [axis for axis in long if _is_related(axis, kernel_nodes)]
      if 1 < len(layer) == len(kernel_axes):
        paths.append(path)
    return paths

  def _are_parameter_axes(self, axes: Sequence[Node]) -> bool:
    """Returns whether every axis longer than 1 is a parameter's own, and not a broadcast one."""
    nodes = _related_ids(axis for axes in self.graph.parameters.values() for axis in axes)
    return all(axis.size == 1 or _is_related(axis, nodes) for axis in axes)

  # Counting

  def add_kernel_cost(self, kernel: Value, macs: int) -> None:
    """Adds a kernel's weights and multiply-accumulates to the parameter that it comes from.

    If the kernel is a concatenation, both are split among its pieces in proportion to their sizes.
    """
    weights = math.prod(sizes(kernel.axes))
    if not weights:
      return
    joined = _concatenated_axis(kernel)
    if joined is None:
      self._add_use(self._find_parameter(kernel.axes, weights), kernel, weights, macs)
      return
    for piece in joined.concatenated_from:
      # Exact where the kernel has the whole joined axis, whose size divides weights and macs.
      piece_weights = weights * piece.size // joined.size
      piece_macs = macs * piece.size // joined.size
      path = self._find_parameter([piece], piece_weights)
      self._add_use(path, kernel, piece_weights, piece_macs)

  def _add_use(self, path: str | None, kernel: Value, weights: int, macs: int) -> None:
    if path is not None:
      self.graph.uses[path].append(use_of_slices(weights, macs, kernel.slices))

  def _find_parameter(self, axes: Sequence[Node], weights: int) -> str | None:
    """Returns the parameter that a kernel with these axes and number of weights comes from.

    That is the only parameter of this size whose axes are all among the kernel's. If there is none,
    as where the kernel is a slice, the parameters that share an axis with the kernel compete: the
    one with the most axes wins, and among equals the one that shares the most entries. If several
    match, or none shares an axis, the count is refused and the result is None.
    """
    matches = [path for path in self._parameters_within(axes) if self.graph.size(path) == weights]
    if len(matches) > 1:
      self.refuse_to_count(f'a kernel is computed from {" and ".join(matches)}')
      return None
    if matches:
      return matches[0]
    nodes = _related_ids(axes)
    shared_sizes = {
      path: sum(axis.size for axis in own_axes if _is_related(axis, nodes))
      for path, own_axes in self.graph.parameters.items()
    }
    path = max(
      shared_sizes,
      key=lambda p: (shared_sizes[p] > 0, len(self.graph.parameters[p]), shared_sizes[p]),
    )
    if not shared_sizes[path]:
      self.refuse_to_count('the kernel of a product comes from no parameter')
      return None
    return path

  def _parameters_within(self, axes: Sequence[Node]) -> list[str]:
    """Returns the parameters that have axes longer than 1, all of them among these."""
    nodes = _related_ids(axes)
    paths = []
    for path, own_axes in self.graph.parameters.items():
      long = [axis for axis in own_axes if axis.size > 1]
      if long and all(_is_related(axis, nodes) for axis in long):
        paths.append(path)
    return paths

  def counts(self) -> Counts:
    """Returns a copy of what has been counted so far."""
    return {path: list(uses) for path, uses in self.graph.uses.items()}, self.graph.activation_macs

  def reset_counts(self, counts: Counts) -> None:
    """Sets what has been counted back to an earlier copy."""
    uses, self.graph.activation_macs = counts
    copies = {path: list(of_path) for path, of_path in uses.items()}
    self.graph.uses = collections.defaultdict(list, copies)

  def refuse_to_count(self, why: str) -> None:
    """Records why the multiply-accumulates can't be counted; the first reason is kept."""
    self.graph.refusal = self.graph.refusal or why


def _concatenated_axis(kernel: Value) -> Node | None:
  """Returns the first axis of a kernel that a concatenation made, or None if none was.

  The first is enough: in a kernel that is concatenated along two axes a piece holds several
  parameters, so that its count is refused anyway.
  """
  nodes = (node for axis in kernel.axes for node in axis.related())
  return next((node for node in nodes if node.concatenated_from), None)


def _scales_rows_or_columns(ins: Sequence[Value], shape: Sequence[int]) -> bool:
  """Returns whether each activation among the operands is broadcast along some axis of a kernel.

  It then scales whole rows or columns of the kernel, as the style of a modulated layer does.
  """
  activations = [value for value in ins if value.kind == ACTIVATION]
  return all(
    any(axis.broadcast or axis.size < size for axis, size in zip(value.axes, shape, strict=False))
    for value in activations
  )


def _literal(atom) -> Value:
  value = new_value(atom.aval.shape, CONSTANT)
  value.scalar = None if atom.aval.shape else Scalar(atom.val)
  return value


def _related_ids(axes: Iterable[Node]) -> set[int]:
  """Returns the ids of the axes' nodes, of their parts, and of the axes that they are parts of."""
  return {id(node) for axis in axes for node in axis.related()}


def _is_related(axis: Node, ids: set[int]) -> bool:
  """Returns whether the axis, a part of it, or the axis that it is a part of is among these."""
  return any(id(node) in ids for node in axis.related())


def _shapes(variables) -> list[tuple[int, ...]]:
  return [getattr(v.aval, 'shape', ()) for v in variables]
