"""Rules for matrix products and convolutions, of a kernel and activations or of activations alone.

A rule takes (reader, equation, operands, how often the equation runs) and returns the outputs.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from sparsejax.sparsity.program.rules.nodes import (
  ACTIVATION,
  CONSTANT,
  EXAMPLE_KINDS,
  KERNEL,
  PARAM,
  PARAMETER_KINDS,
  Value,
  kind_of_product,
  mark_output,
  new_output,
  sizes,
  unify,
)


class Dimensions(NamedTuple):
  """The dimension numbers of a dot_general, with the axes of its output.

  Attributes:
    contracted: (lhs axis, rhs axis) of each pair that is summed over.
    batch: (output axis, lhs axis, rhs axis) of each batch dimension.
    free: for lhs and for rhs, (output axis, operand axis) of the other axes.
  """

  contracted: list[tuple[int, int]]
  batch: list[tuple[int, int, int]]
  free: list[list[tuple[int, int]]]


def dot_general(reader, eqn, ins, times):
  """Reads out[batch, lhs free, rhs free] = sum over the contracted axes of lhs * rhs."""
  out = _new_product(eqn, ins)
  dims = _dimensions(eqn, ins)
  terms = math.prod(ins[0].axes[lhs].size for lhs, _ in dims.contracted)
  macs = times * math.prod(sizes(out.axes)) * terms
  kernel_index = _kernel_index(reader, ins)
  if kernel_index is not None:
    reader.add_kernel_cost(ins[kernel_index], macs)
    _relate_kernel_to_activation(ins, kernel_index, out, dims)
    return [out]
  for value, free in zip(ins, dims.free, strict=True):
    for out_axis, axis in free:
      out.axes[out_axis] = value.axes[axis]
  if out.kind == ACTIVATION:
    reader.graph.activation_macs += macs
    for out_axis, lhs, rhs in dims.batch:
      unify(ins[0].axes[lhs], ins[1].axes[rhs])
      out.axes[out_axis] = ins[0].axes[lhs]
      ins[0].axes[lhs].find().batched_with_activation = True
  return [out]


def _dimensions(eqn, ins: Sequence[Value]) -> Dimensions:
  contracted, batch = eqn.params['dimension_numbers']
  out_axes = itertools.count()  # the output has the batch axes first, then lhs free, then rhs free
  batch_axes = [(next(out_axes), lhs, rhs) for lhs, rhs in zip(*batch, strict=True)]
  free = []
  for value, summed, batched in zip(ins, contracted, batch, strict=True):
    others = [i for i in range(len(value.axes)) if i not in (*summed, *batched)]
    free.append([(next(out_axes), i) for i in others])
  return Dimensions(list(zip(*contracted, strict=True)), batch_axes, free)


def _new_product(eqn, ins) -> Value:
  return Value(new_output(eqn, ins).axes, kind_of_product([value.kind for value in ins]))


def _kernel_index(reader, ins: Sequence[Value]) -> int | None:
  """Returns which of two factors multiplies the other as a kernel; None where neither does."""
  kinds = [value.kind for value in ins]
  if kinds.count(KERNEL) == 1:
    return kinds.index(KERNEL)
  if PARAM in kinds and set(kinds) & set(EXAMPLE_KINDS):  # such as a tied embedding
    return kinds.index(PARAM)
  if all(kind in PARAMETER_KINDS for kind in kinds):
    reader.refuse_to_count('two parameters are multiplied by each other')
  return None


def _relate_kernel_to_activation(
  ins: Sequence[Value], kernel_index: int, out: Value, dims: Dimensions
) -> None:
  """Assigns roles to a kernel's axes: batch is a stack, contracted an input, free an output."""
  kernel, activation = ins[kernel_index], ins[1 - kernel_index]
  for out_axis, *pair in dims.batch:
    batched = activation.axes[pair[1 - kernel_index]]
    kernel.axes[pair[kernel_index]].assign_role('stack')
    batched.find().batched_with_kernel = True
    out.axes[out_axis] = batched
  for pair in dims.contracted:
    summed = kernel.axes[pair[kernel_index]]
    summed.assign_role('in')
    summed.add_activation(activation.axes[pair[1 - kernel_index]])
  for out_axis, axis in dims.free[1 - kernel_index]:
    out.axes[out_axis] = activation.axes[axis]
  for out_axis, axis in dims.free[kernel_index]:
    mark_output(kernel.axes[axis], out.axes[out_axis])


def ragged_dot_general(reader, eqn, ins, times):
  """Reads a product of rows in groups, each group with a kernel of its own.

  The cost is refused: the examples say how many rows each group has.
  """
  del times
  kernel = ins[1]
  numbers = eqn.params['ragged_dot_dimension_numbers']
  (_, contracted), _ = numbers.dot_dimension_numbers
  reader.refuse_to_count('an example chooses how often a ragged product applies each kernel')
  if kernel.kind in PARAMETER_KINDS:
    for i, axis in enumerate(kernel.axes):
      is_stack = i in numbers.rhs_group_dimensions
      axis.assign_role('stack' if is_stack else 'in' if i in contracted else 'out')
  return [_new_product(eqn, ins)]


def conv_general_dilated(reader, eqn, ins, times):
  """Reads a convolution, whose kernel's axes are outputs, inputs and positions."""
  image, kernel = ins
  out = _new_product(eqn, ins)
  numbers = eqn.params['dimension_numbers']
  out_features, in_features, *window = numbers.rhs_spec
  batch, channel, *_ = numbers.lhs_spec
  macs = times * _convolution_macs(reader, eqn, image, kernel, out)
  out.axes[numbers.out_spec[0]] = image.axes[batch]
  if kernel.kind not in PARAMETER_KINDS or image.kind in PARAMETER_KINDS:
    if {kernel.kind, image.kind} & set(PARAMETER_KINDS):
      reader.refuse_to_count('the image of a convolution is a parameter')
    elif out.kind != CONSTANT:
      reader.graph.activation_macs += macs
    return [out]
  reader.add_kernel_cost(kernel, macs)
  for i in window:
    kernel.axes[i].assign_role('position')
  kernel.axes[in_features].assign_role('in')
  mark_output(kernel.axes[out_features], out.axes[numbers.out_spec[1]])
  # In groups, the kernel's input axis is only as long as one group of the image's channels.
  if eqn.params['feature_group_count'] == 1:
    kernel.axes[in_features].add_activation(image.axes[channel])
  return [out]


def _convolution_macs(reader, eqn, image: Value, kernel: Value, out: Value) -> int:
  """Returns the multiply-accumulates of a convolution that runs once."""
  p = eqn.params
  out_features, in_features, *window = p['dimension_numbers'].rhs_spec
  window_size = math.prod(kernel.axes[i].size for i in window)
  is_transposed = any(n > 1 for n in p['lhs_dilation'])
  is_strided = any(n > 1 for n in p['window_strides'])
  if p['batch_group_count'] > 1 or (is_transposed and is_strided):
    reader.refuse_to_count(
      'a convolution has batch_group_count > 1, or lhs_dilation and window_strides at once'
    )
  if is_transposed:  # from the image's own entries: the zeros that dilation inserts cost nothing
    group_outputs = kernel.axes[out_features].size // p['feature_group_count']
    return math.prod(sizes(image.axes)) * window_size * group_outputs
  # The kernel's input axis has the channels of one group alone.
  return math.prod(sizes(out.axes)) * window_size * kernel.axes[in_features].size


RULES = {
  'dot_general': dot_general,
  'conv_general_dilated': conv_general_dilated,
  'ragged_dot_general': ragged_dot_general,
}
