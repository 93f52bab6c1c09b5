"""Looks a thing up by its name; an unknown name raises a message that lists the known ones."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar('T')


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
  """Returns table[name], or raises a ValueError that names the nearest known name.

  Example:
    >>> lookup('model', 'vgg61', {'vgg16': 1, 'lenet5': 2})
    Traceback (most recent call last):
    ValueError: unknown model 'vgg61': did you mean 'vgg16'? Known: lenet5, vgg16
  """
  if isinstance(name, str) and name in table:
    return table[name]
  hint = nearest(str(name), table, cutoff=0.5)
  names = ', '.join(sorted(table)) if len(table) < 30 else f'{len(table)} names'
  raise ValueError(
    f"unknown {kind} '{name}':{hint} Known: {names}"
    if hint
    else f"unknown {kind} '{name}': it must be one of {names}"
  )


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
  """Returns " did you mean '...'?" for the nearest known name, or '' if no name is near.

  Example:
    >>> nearest('epoch', ['epochs', 'seed']), nearest('epoch', ['seed'])
    (" did you mean 'epochs'?", '')
  """
  near = difflib.get_close_matches(name[:200], list(known), n=1, cutoff=cutoff)
  return f" did you mean '{near[0]}'?" if near else ''
