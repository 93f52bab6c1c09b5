"""Finding a thing by its name, and saying what is allowed when there is none of that name."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar('T')


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
  """Returns table[name], or raises a ValueError that names the nearest known name.

  Example:
    >>> lookup('model', 'vgg61', {'vgg16': 1, 'lenet5': 2})
    Traceback (most recent call last):
    ValueError: unknown model 'vgg61': did you mean 'vgg16'? Known: lenet5, vgg16
  """
  if name in table:
    return table[name]
  near = difflib.get_close_matches(str(name), list(table), n=1, cutoff=0.5)
  hint = f" did you mean '{near[0]}'?" if near else ''
  known = f'Known: {", ".join(sorted(table))}' if len(table) < 30 else f'{len(table)} are known'
  raise ValueError(f"unknown {kind} '{name}':{hint} {known}")
