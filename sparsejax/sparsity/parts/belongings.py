"""Leaves pruned together with filters: a bias, and the scale and shift of a normalisation.

The parameters do not show which normalisation follows which kernel, so the user names it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparsejax.internal.lookup import nearest
from sparsejax.sparsity.leaves import tree


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
    raise ValueError(f"norms: '{norm}', that of '{module}', must hold a parameter:{known}")
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
