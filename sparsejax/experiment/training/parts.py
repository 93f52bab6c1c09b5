"""Checks of a user's own part when it is registered: its name, form and settings."""

import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

from sparsejax.experiment.data.sources import Source
from sparsejax.experiment.terminal.say import shown

# The arguments that each kind of part is called with; the registry itself checks the other kinds.
CALLED_WITH: dict[str, tuple[str, ...]] = {
  'criterion': ('weights',),
  'allocation': (),
  'granularity': (),
  'update_rule': (),
  'event': ('state', 'settings', 'context'),
}
BLOCK_KINDS = ('link', 'event', 'posterior')  # kinds whose names are also blocks of a config


def check_name(kind: str, name: Any) -> None:
  """Refuses an impossible name of a part."""
  if not isinstance(name, str) or not re.fullmatch(r'[^\W\d][\w-]*', name):
    raise ValueError(
      f"register: name={shown(name)} must be a string of letters, digits, '_' and '-', such as "
      f"'my_{kind}'"
    )


def check(kind: str, part: Any, settings: Any) -> None:
  """Refuses a part that cannot be of its kind.

  Raises:
    ValueError: says in one line what is wrong with the part or its settings.

  Example:
    >>> check('criterion', abs, None)
    >>> check('criterion', 0.5, None)
    Traceback (most recent call last):
    ValueError: register: part=0.5 must be a function (weights) to be a criterion
  """
  if kind == 'data':
    _check_data(part)
  elif kind != 'posterior':
    _check_function(kind, part)
  if settings is not None and kind != 'event':
    raise ValueError(
      f'register: settings={shown(settings)} are never read: only an event has settings here; a '
      "link's are its own arguments"
    )
  if settings is not None and not _are_settings(settings):
    raise ValueError(
      f'register: settings={shown(settings)} must be a dict of numbers, strings and flags by name'
    )


def _are_settings(settings: Any) -> bool:
  is_dict = isinstance(settings, Mapping)
  return is_dict and all(isinstance(key, str) and key.isidentifier() for key in settings)


def _check_function(kind: str, part: Any) -> None:
  arguments = CALLED_WITH.get(kind)
  what = 'a function' if arguments is None else f'a function ({", ".join(arguments)})'
  article = 'an' if kind[0] in 'aeiou' else 'a'
  wrong = f'register: part={shown(part)} must be {what} to be {article} {kind}'
  if not callable(part):
    raise ValueError(wrong)
  try:
    signature = inspect.signature(part)
  except (TypeError, ValueError):  # some functions in C have no signature
    signature = None
  if kind == 'link' and signature is None:
    raise ValueError(f'{wrong} whose arguments can be read')
  if signature is not None and arguments is not None:
    keywords = [p.name for p in signature.parameters.values() if p.kind == p.KEYWORD_ONLY]
    given = dict.fromkeys(keywords) if kind == 'criterion' else {}
    try:
      signature.bind(*arguments, **given)
    except TypeError as error:
      raise ValueError(f'{wrong}: {error}') from None
  if kind == 'criterion':
    _check_hash(part, wrong)


def _check_hash(part: Any, wrong: str) -> None:
  """Refuses a criterion without a hash, by which compiled programs are found again."""
  try:
    hash(part)
  except TypeError as error:
    raise ValueError(f'{wrong} that can be hashed, such as a frozen dataclass: {error}') from None


def _check_data(part: Any) -> None:
  """Refuses a data set that `data_set` did not make."""
  if not isinstance(part, Source):
    raise ValueError(f'register: part={shown(part)} must be what data_set(read, ...) returns')
  if not callable(part.read):
    raise ValueError(f'register: read={shown(part.read)} must be a function (folder, cache)')
  for name, least in (('num_classes', 2), ('validation', 1)):
    value = getattr(part, name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
      raise ValueError(f'register: {name}={shown(value)} must be an integer of {least} or more')


def place(part: Any) -> str:
  """Returns the name of a part within its file, so that two parts of one file are told apart."""
  bare = getattr(part, 'read', part)  # for a data set, the function that reads it
  while isinstance(bare, functools.partial):
    bare = bare.func
  code = getattr(bare, '__code__', None)
  name = getattr(bare, '__qualname__', type(bare).__qualname__)
  return f'{name}:{code.co_firstlineno}' if code else name
