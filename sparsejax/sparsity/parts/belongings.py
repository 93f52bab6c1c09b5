"""What belongs to filters beside their kernel: a bias, a normalisation's scale and shift.

Which normalisation follows which kernel is nowhere in the parameters; whoever wants it says so.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sparsejax.internal.lookup import nearest
from sparsejax.sparsity.leaves import tree


class Belongings(NamedTuple):
  """bias: whether a bias goes with its filter.

  norms: (pattern, template) pairs: of the module of a kernel, wholly matched, and the path of the
  normalisation that its outputs go through, in which a group of the pattern may stand as in '\\1'.
  """

  bias: bool = True
  norms: tuple[tuple[str, str], ...] = ()


def checked_norms(norms: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
  """Returns the pairs of a mapping, or raises a ValueError in one line for what is none.

  Example:
    >>> checked_norms({'conv(.)': r'norm\\1'})
    (('conv(.)', 'norm\\\\1'),)
  """
  norms = {} if norms is None else norms
  if not isinstance(norms, Mapping):
    raise ValueError(f"norms={norms!r} must be a dict of modules, as {{'conv1': 'norm1'}}")
  for pattern, template in norms.items():
    if not isinstance(pattern, str) or not isinstance(template, str):
      raise ValueError(f'norms={{{pattern!r}: {template!r}}} must name modules by strings')
    tree.patterns(pattern, 'norms')
  return tuple(norms.items())


def belongings(
  kernels: Sequence[str], paths: Sequence[str], wanted: Belongings
) -> dict[str, list[str]]:
  """Returns {path of a kernel: the paths of what goes with its filters}.

  Args:
    kernels: the paths of those that are pruned.
    paths: the paths of all leaves.
    wanted: what is asked for.

  Raises:
    ValueError: a pattern without a kernel, a normalisation that is not there or that of two.

  Example:
    >>> paths = ['conv1/bias', 'conv1/kernel', 'norm1/bias', 'norm1/scale']
    >>> belongings(['conv1/kernel'], paths, Belongings(norms=(('conv(.)', r'norm\\1'),)))
    {'conv1/kernel': ['conv1/bias', 'norm1/bias', 'norm1/scale']}
  """
  modules = [tree.module_of(path) for path in kernels]
  for pattern, _ in wanted.norms:
    if kernels and not any(re.fullmatch(pattern, module) for module in modules):
      known = nearest(pattern, modules) or f' there are {", ".join(modules)}'
      raise ValueError(f"norms: '{pattern}' is the module of no kernel that is pruned:{known}")
  found = {}
  for kernel, module in zip(kernels, modules, strict=True):
    own = _biases(module, paths) if wanted.bias and modules.count(module) == 1 else []
    found[kernel] = own + _of_norm(module, paths, wanted.norms)
  _check_owners(found)
  return found


def _biases(module: str, paths: Sequence[str]) -> list[str]:
  names = [f'{module}/{name}'.strip('/') for name in ('bias', 'b')]
  return [name for name in names if name in paths][:1]


def _of_norm(module: str, paths: Sequence[str], norms: tuple[tuple[str, str], ...]) -> list[str]:
  matches = ((re.fullmatch(pattern, module), template) for pattern, template in norms)
  norm = next((match.expand(template) for match, template in matches if match), None)
  if norm is None:
    return []
  found = [path for path in paths if tree.module_of(path) == norm]
  if not found:
    known = nearest(norm, dict.fromkeys(map(tree.module_of, paths)))
    raise ValueError(f"norms: '{module}' has '{norm}', which holds no parameter:{known}")
  return found


def _check_owners(found: Mapping[str, Sequence[str]]) -> None:
  owners: dict[str, str] = {}
  for kernel, paths in found.items():
    for path in paths:
      if path in owners:
        raise ValueError(
          f"norms: '{path}' is of '{owners[path]}' and of '{kernel}', and must be of one"
        )
      owners[path] = kernel
