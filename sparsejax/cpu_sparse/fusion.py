"""Fuses each product with the scales, biases and ReLU that follow it."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from sparsejax.compact.trace.known import Known
from sparsejax.cpu_sparse.constant_folding import Split
from sparsejax.cpu_sparse.feature_major import Product, product_of
from sparsejax.cpu_sparse.fused_layers import Layer
from sparsejax.sparsity.program.equations import Equation

IDENTITIES = 'copy', 'copy_p', 'name', 'optimization_barrier', 'stop_gradient'


def fuse_products(
  split: Split, outs: Sequence[int], names: Mapping[int, str]
) -> list[Equation | Layer]:
  """Returns the equations to run at each call, with every supported product replaced by a layer.

  Args:
    split: the program, split into constants and remaining equations.
    outs: the numbers of the values that the program returns.
    names: {number of a parameter: its path}.
  """
  readers = collections.defaultdict(list)
  for eqn in split.remaining:
    for number in eqn.ins:
      readers[number].append(eqn)
  for number in outs:
    readers[number].append(None)
  steps, fused = [], set()
  for eqn in split.remaining:
    if eqn in fused:
      continue
    product = _product_with_constant(eqn, split.constants)
    if product is None:
      steps.append(eqn)
      continue
    epilogue = _Epilogue(eqn, product, split.constants)
    fused |= epilogue.extend(readers)
    source = split.sources.get(eqn.ins[1 - product.data], -1)
    steps.append(epilogue.layer(names.get(source) or eqn.name))
  return steps


def _product_with_constant(eqn: Equation, constants: Mapping[int, Known]) -> Product | None:
  """Returns an equation's product with a constant float32 kernel, or None if it has none."""
  if eqn.name not in ('dot_general', 'conv_general_dilated'):
    return None
  is_constant = [number in constants for number in eqn.ins]
  if sum(is_constant) != 1:
    return None
  data = is_constant.index(False)
  weights = constants[eqn.ins[1 - data]].value
  return product_of(eqn, data) if weights.dtype == np.float32 else None


class _Epilogue:
  """The operations that follow a product, as relu(scale * product + shift), one scale per output.

  Attributes:
    out: the number of the value that the operations so far result in.
    relu: whether the last of them is a ReLU.
  """

  def __init__(self, eqn: Equation, product: Product, constants: Mapping[int, Known]):
    self._eqn, self._product, self._constants = eqn, product, constants
    self.out = eqn.outs[0]
    self.relu = False
    outputs = product.kernel[0]
    self._scale, self._shift = np.ones(outputs), np.zeros(outputs)

  def extend(self, readers: Mapping[int, list[Equation | None]]) -> set[Equation]:
    """Adds equations for as long as the result has one reader; returns those that were added.

    Args:
      readers: {number of a value: the equations that read it}, with None for the caller.
    """
    added = set()
    while len(readers[self.out]) == 1 and not self.relu:
      [eqn] = readers[self.out]
      if eqn is None or eqn.out_shapes != self._eqn.out_shapes or not self._add(eqn):
        break
      added.add(eqn)
      [self.out] = eqn.outs
    return added

  def _add(self, eqn: Equation) -> bool:
    """Adds one equation; returns False if it cannot be fused."""
    if eqn.name in IDENTITIES:
      return True
    if eqn.name == 'max':
      [other] = [number for number in eqn.ins if number != self.out]
      self.relu = other in self._constants and not self._constants[other].value.any()
      return self.relu
    if eqn.name not in ('add', 'sub', 'mul', 'div') or eqn.ins == [self.out] * 2:
      return False
    position = eqn.ins.index(self.out)
    operand = self._per_output(eqn.ins[1 - position])
    if operand is None or (eqn.name == 'div' and position == 1):
      return False
    with np.errstate(all='ignore'):
      scale, shift = _apply(eqn.name, position, operand, self._scale, self._shift)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
      return False
    self._scale, self._shift = scale, shift
    return True

  def _per_output(self, number: int) -> np.ndarray | None:
    """Returns a constant as (outputs,); None if it is not constant or varies along other axes."""
    if number not in self._constants:
      return None
    value = self._constants[number].value
    if not value.ndim:
      return np.full(len(self._scale), value, np.float64)
    out_shape = self._eqn.out_shapes[0]
    axes = self._product.out_order[: self._product.out_features]
    if any(size != 1 for axis, size in enumerate(value.shape) if axis not in axes):
      return None
    shape = [size if axis in axes else 1 for axis, size in enumerate(out_shape)]
    return np.broadcast_to(value, shape).reshape(-1).astype(np.float64)

  def layer(self, name: str) -> Layer:
    """Returns the product with the scale in its weights, and the shift as its bias."""
    product, data = self._product, self._product.data
    weights = self._constants[self._eqn.ins[1 - data]].full()
    weights = weights.transpose(product.kernel_order).reshape(product.kernel)
    if (self._scale != 1).any():
      weights = weights * self._scale.reshape(-1, 1, 1, 1)
    return Layer(
      name=name,
      eqn=self._eqn,
      product=product,
      weights=np.ascontiguousarray(weights, np.float32),
      bias=self._shift.astype(np.float32),
      relu=self.relu,
      data=self._eqn.ins[data],
      out=self.out,
    )


def _apply(
  name: str, position: int, operand: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the scale and shift after one more operation.

  Args:
    name: 'add', 'sub', 'mul' or 'div'.
    position: the position of scale * product + shift among the operands.
    operand: the other operand, one number for each output.
    scale: the scale before.
    shift: the shift before.
  """
  if name == 'add':
    return scale, shift + operand
  if name == 'sub':
    return (scale, shift - operand) if position == 0 else (-scale, operand - shift)
  if name == 'mul':
    return scale * operand, shift * operand
  return scale / operand, shift / operand
