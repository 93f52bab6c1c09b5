"""Products with their scales, biases and ReLUs: what follows a product goes into its kernel."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from sparsejax.compact.trace.equations import Equation
from sparsejax.compact.trace.known import Known
from sparsejax.cpu_sparse.constants import Split
from sparsejax.cpu_sparse.layers import Layer
from sparsejax.cpu_sparse.products import Product, product_of

UNCHANGED = 'copy', 'copy_p', 'name', 'optimization_barrier', 'stop_gradient'


def steps_of(split: Split, outs: Sequence[int], names: Mapping[int, str]) -> list[Equation | Layer]:
  """Returns what is to be computed at each call: products with all that is folded into them.

  Args:
    split: the program without what depends on parameters alone.
    outs: the values that the program returns.
    names: the paths of the parameters, by number.
  """
  users = collections.defaultdict(list)
  for eqn in split.rest:
    for number in eqn.ins:
      users[number].append(eqn)
  for number in outs:
    users[number].append(None)
  steps, gone = [], set()
  for eqn in split.rest:
    if eqn in gone:
      continue
    found = _product(eqn, split.constants)
    if found is None:
      steps.append(eqn)
      continue
    folder = _Folder(eqn, found, split.constants)
    gone |= folder.follow(users)
    source = split.sources.get(eqn.ins[1 - found.data], -1)
    steps.append(folder.layer(names.get(source) or eqn.name))
  return steps


def _product(eqn: Equation, constants: Mapping[int, Known]) -> Product | None:
  if eqn.name not in ('dot_general', 'conv_general_dilated'):
    return None
  fixed = [number in constants for number in eqn.ins]
  if sum(fixed) != 1:
    return None
  data = fixed.index(False)
  weights = constants[eqn.ins[1 - data]].value
  return product_of(eqn, data) if weights.dtype == np.float32 else None


class _Folder:
  """Follows what becomes of a product, as scale * product + shift, until that is something else."""

  def __init__(self, eqn: Equation, product: Product, constants: Mapping[int, Known]):
    self._eqn, self._product, self._constants = eqn, product, constants
    self.out, self.relu = eqn.outs[0], False
    outputs = product.kernel[0]
    self._scale, self._shift = np.ones(outputs), np.zeros(outputs)

  def follow(self, users: Mapping[int, list[Equation | None]]) -> set[Equation]:
    """Takes in what follows, and returns the equations that it took."""
    taken = set()
    while len(users[self.out]) == 1 and not self.relu:
      [eqn] = users[self.out]
      if eqn is None or eqn.out_shapes != self._eqn.out_shapes or not self._takes(eqn):
        break
      taken.add(eqn)
      [self.out] = eqn.outs
    return taken

  def _takes(self, eqn: Equation) -> bool:
    if eqn.name in UNCHANGED:
      return True
    if eqn.name == 'max':
      [other] = [number for number in eqn.ins if number != self.out]
      self.relu = other in self._constants and not self._constants[other].value.any()
      return self.relu
    if eqn.name not in ('add', 'sub', 'mul', 'div') or eqn.ins == [self.out] * 2:
      return False
    at = eqn.ins.index(self.out)
    numbers = self._of_each_output(eqn.ins[1 - at])
    if numbers is None or (eqn.name == 'div' and at == 1):
      return False
    with np.errstate(all='ignore'):
      scale, shift = _after(eqn.name, at, numbers, self._scale, self._shift)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
      return False
    self._scale, self._shift = scale, shift
    return True

  def _of_each_output(self, number: int) -> np.ndarray | None:
    """A constant's number for each output; None where it is none, or differs otherwise."""
    if number not in self._constants:
      return None
    value = self._constants[number].value
    if not value.ndim:
      return np.full(len(self._scale), value, np.float64)
    made, axes = self._eqn.out_shapes[0], self._product.out_order[: self._product.out_features]
    if any(n != 1 for i, n in enumerate(value.shape) if i not in axes):
      return None
    wide = np.broadcast_to(value, [made[i] if i in axes else 1 for i in range(len(made))])
    return wide.reshape(-1).astype(np.float64)

  def layer(self, name: str) -> Layer:
    """Returns the product with all that was taken in."""
    p, data = self._product, self._product.data
    weights = self._constants[self._eqn.ins[1 - data]].full()
    matrix = weights.transpose(p.kernel_order).reshape(p.kernel)
    if (self._scale != 1).any():
      matrix = matrix * self._scale.reshape(-1, 1, 1, 1)
    return Layer(
      name,
      self._eqn,
      p,
      np.ascontiguousarray(matrix, np.float32),
      self._shift.astype(np.float32),
      self.relu,
      self._eqn.ins[data],
      self.out,
    )


def _after(name, at, numbers, scale, shift):
  """Scale and shift after one more operation."""
  if name == 'add':
    return scale, shift + numbers
  if name == 'sub':
    return (scale, shift - numbers) if at == 0 else (-scale, numbers - shift)
  if name == 'mul':
    return scale * numbers, shift * numbers
  return scale / numbers, shift / numbers
