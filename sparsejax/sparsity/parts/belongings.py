"""Leaves pruned together with filters: a bias, a normalisation's scale and shift, tied filters.

The parameters do not show which normalisation follows which kernel, so the user names it, or passes
the ties that `sparsejax.compact.plan` reads from the program.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sparsejax.internal.lookup import nearest
from sparsejax.sparsity.leaves import tree
from sparsejax.sparsity.leaves.layout import Layout


class Belongings(NamedTuple):
  """The leaves that are pruned together with a kernel's filters.

  bias: whether a filter's bias is pruned with it.
  norms: (pattern, template) pairs. A pattern must match the whole path of a kernel's module; its
  template is the path of the normalisation that follows, with groups of the pattern as in '\\1'.
  """

  bias: bool = True
  norms: tuple[tuple[str, str], ...] = ()


def checked_norms(norms: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
  """Returns the (pattern, template) pairs of a mapping, or raises a ValueError.

  Example:
    >>> checked_norms({'conv(.)': r'norm\\1'})
    (('conv(.)', 'norm\\\\1'),)
  """
  norms = {} if norms is None else norms
  if not isinstance(norms, Mapping):
    raise ValueError(f"norms={norms!r} must be a dict of modules, such as {{'conv1': 'norm1'}}")
  for pattern, template in norms.items():
    if not isinstance(pattern, str) or not isinstance(template, str):
      raise ValueError(
        f'norms={{{pattern!r}: {template!r}}} must have strings, the paths of modules'
      )
    tree.patterns(pattern, 'norms')
  return tuple(norms.items())


def belongings(
  kernels: Sequence[str], paths: Sequence[str], wanted: Belongings
) -> dict[str, list[str]]:
  """Returns {path of a kernel: the paths of the leaves pruned with its filters}.

  Args:
    kernels: the paths of the kernels that are pruned.
    paths: the paths of all leaves.
    wanted: the leaves to find.

  Raises:
    ValueError: if a pattern matches no kernel, or a normalisation is missing or has two kernels.

  Example:
    >>> paths = ['conv1/bias', 'conv1/kernel', 'norm1/bias', 'norm1/scale']
    >>> belongings(['conv1/kernel'], paths, Belongings(norms=(('conv(.)', r'norm\\1'),)))
    {'conv1/kernel': ['conv1/bias', 'norm1/bias', 'norm1/scale']}
  """
  modules = [tree.module_of(path) for path in kernels]
  for pattern, _ in wanted.norms:
    if kernels and not any(re.fullmatch(pattern, module) for module in modules):
      known = nearest(pattern, modules) or f' there are {", ".join(modules)}'
      raise ValueError(
        f"norms: '{pattern}' must match the module of a kernel that is pruned:{known}"
      )
  found = {}
  for kernel, module in zip(kernels, modules, strict=True):
    own = _biases(module, paths) if wanted.bias and modules.count(module) == 1 else []
    found[kernel] = own + _norm_leaves(module, paths, wanted.norms)
  _check_owners(found)
  return found


def _biases(module: str, paths: Sequence[str]) -> list[str]:
  names = [f'{module}/{name}'.strip('/') for name in ('bias', 'b')]
  return [name for name in names if name in paths][:1]


def _norm_leaves(
  module: str, paths: Sequence[str], norms: tuple[tuple[str, str], ...]
) -> list[str]:
  matches = ((re.fullmatch(pattern, module), template) for pattern, template in norms)
  norm = next((match.expand(template) for match, template in matches if match), None)
  if norm is None:
    return []
  found = [path for path in paths if tree.module_of(path) == norm]
  if not found:
    known = nearest(norm, dict.fromkeys(map(tree.module_of, paths)))
    raise ValueError(f"norms: '{norm}', given for '{module}', must hold a parameter:{known}")
  return found


def _check_owners(found: Mapping[str, Sequence[str]]) -> None:
  owners: dict[str, str] = {}
  for kernel, paths in found.items():
    for path in paths:
      if path in owners:
        raise ValueError(
          f"norms: '{path}' belongs to '{owners[path]}' and '{kernel}', and must belong to one"
        )
      owners[path] = kernel


# Ties


@dataclasses.dataclass(frozen=True, eq=False)
class Tied:
  """Units of several leaves, which can only be removed as a whole.

  Attributes:
    units: {path: {axis: {index: number of its unit}}}.
  """

  units: Mapping[str, Mapping[int, Mapping[int, int]]]

  def of_outputs(self, path: str, shape: tuple[int, ...], layout: Layout) -> np.ndarray | None:
    """Returns the number of the unit of each output of a leaf, or None if it only reads units.

    An output that belongs to no unit has the number -1.

    Args:
      path: the leaf's path.
      shape: its shape.
      layout: its layout.

    Raises:
      ValueError: if its outputs belong to units along two axes, or the ties are for another shape.
    """
    for axis, found in self.units[path].items():
      if axis >= len(shape) or max(found) >= shape[axis]:
        raise ValueError(
          f"granularity tied: '{path}' has shape {shape} and must have the shape that its ties "
          'were planned for: make a new plan'
        )
    sides = {axis: {f.side for f in layout.factors if f.axis == axis} for axis in range(len(shape))}
    made = [axis for axis in self.units[path] if sides[axis] == {'out'}]
    if not made:
      return None
    if len(made) > 1:
      raise ValueError(
        f"granularity tied: '{path}' has units along the axes {made[0]} and {made[1]}, and must "
        'have them along one: pass the ties of one axis only'
      )
    [axis] = made
    numbers = np.full(shape[axis], -1)
    indices, units = zip(*self.units[path][axis].items(), strict=True)
    numbers[list(indices)] = units
    along = numbers.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    whole: Any = np.broadcast_to(along, shape)
    view = np.asarray(layout.view(whole, 'matrix'))
    return view.reshape(-1, view.shape[-1])[0]


def checked_ties(ties: Iterable[Any]) -> Tied:
  """Returns the units of ties, or raises a ValueError in one line if they are not ties.

  Args:
    ties: each has `slices`, {path: {axis: indices}}, like those of `sparsejax.compact.plan`.
  """
  found: dict[str, dict[int, dict[int, int]]] = {}
  ties = list(ties) if isinstance(ties, Iterable) else [ties]
  for number, tie in enumerate(ties):
    slices = getattr(tie, 'slices', None)
    if not isinstance(slices, Mapping):
      raise ValueError(
        f'granularity tied: {tie!r} must be a tie, an element of sparsejax.compact.plan(...).ties'
      )
    for path, axes in slices.items():
      for axis, indices in axes.items():
        found.setdefault(path, {}).setdefault(axis, {}).update(dict.fromkeys(indices, number))
  if not found:
    raise ValueError(
      'granularity tied: ties=() must have at least one tie: `pinned` of sparsejax.compact.plan '
      'says why every unit must be kept'
    )
  return Tied(found)
