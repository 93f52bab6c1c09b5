"""The kinds of settings: each converts a value or a string, or says what it must be."""

import ast
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sparsejax.experiment.terminal.say import shown
from sparsejax.internal.lookup import nearest


class WrongError(ValueError):
  """A value that a setting cannot have; the message says what it must be."""


class Kind:
  """A type of setting, which converts or refuses values.

  Its `requirement` completes the sentence "it must be ...".
  """

  requirement = 'anything'

  def convert(self, value: Any) -> Any:
    """Returns the value in the setting's own type.

    Raises:
      WrongError: the value is impossible.
    """
    return value

  def parse(self, text: str) -> Any:
    """Returns the value that a string on a command line stands for, and raises likewise."""
    return self.convert(literal(text))


def literal(text: str) -> Any:
  """Returns the value of a string that is a Python literal, or else the string itself.

  Example:
    >>> literal('(1, 2)'), literal('relu')
    ((1, 2), 'relu')
  """
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return text


LARGEST = 3.4028234663852886e38  # the largest float32, the type of all computation


@dataclasses.dataclass(frozen=True)
class Number(Kind):
  """A finite number between two bounds.

  Attributes:
    low: the least that it may be.
    high: the most.
    above: whether it must be above `low`.
    below: whether it must be below `high`.

  Example:
    >>> Number(0.0).convert(1), Number(0.0, above=True).requirement
    (1.0, 'a number above 0')
  """

  low: float = -math.inf
  high: float = math.inf
  above: bool = False
  below: bool = False

  @property
  def requirement(self) -> str:
    least = f'above {self.low:g}' if self.above else f'of {self.low:g} or more'
    most = f'below {self.high:g}' if self.below else f'of {self.high:g} or less'
    bounds = [t for t, end in ((least, self.low), (most, self.high)) if math.isfinite(end)]
    return f'a number {" and ".join(bounds)}' if bounds else 'a finite number'

  def convert(self, value: Any) -> float:
    if not is_number(value):
      raise WrongError(self.requirement)
    try:
      value = float(value)
    except OverflowError:
      raise WrongError(self.requirement) from None
    low = value > self.low if self.above else value >= self.low
    high = value < self.high if self.below else value <= self.high
    if not (math.isfinite(value) and low and high):
      raise WrongError(self.requirement)
    if abs(value) > LARGEST:
      raise WrongError(f'{self.requirement}, no larger than the largest float32')
    return value


@dataclasses.dataclass(frozen=True)
class Period(Number):
  """A duration between two events; a whole number of steps stays an integer."""

  low: float = 0.0
  above: bool = True

  def convert(self, value: Any) -> float:
    converted = super().convert(value)
    return value if isinstance(value, int) else converted


def is_number(value: Any) -> bool:
  """Returns whether a setting is a plain number; True and False are not."""
  return isinstance(value, int | float) and not isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class Integer(Kind):
  """An integer between two bounds."""

  low: int | None = None
  high: int | None = None

  @property
  def requirement(self) -> str:
    least = '' if self.low is None else f' of {self.low} or more'
    return f'an integer{least}' + ('' if self.high is None else f', up to {self.high}')

  def convert(self, value: Any) -> int:
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    low = -math.inf if self.low is None else self.low
    high = math.inf if self.high is None else self.high
    if not is_integer or not low <= value <= high:
      raise WrongError(self.requirement)
    return value


class Flag(Kind):
  """True or False."""

  requirement = 'True or False'

  def convert(self, value: Any) -> bool:
    if not isinstance(value, bool):
      raise WrongError(self.requirement)
    return value

  def parse(self, text: str) -> bool:
    words = {'true': True, 'false': False}
    return self.convert(words.get(text.lower(), text))


class Word(Kind):
  """A string that is taken as it stands, not read as a Python literal."""

  def parse(self, text: str) -> Any:
    return self.convert(text)


class Text(Word):
  """A string of one line that can be printed."""

  requirement = 'a string of one line'

  def convert(self, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
      raise WrongError(self.requirement)
    return value


class Name(Text):
  """A string that can name a folder; '' stands for a name that is found elsewhere."""

  requirement = 'a name of at most 100 characters, without a slash'

  def convert(self, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
      raise WrongError(self.requirement)
    if len(value.encode(errors='replace')) > 100 or '/' in value or value in ('.', '..'):
      raise WrongError(self.requirement)
    return value


# What settings and their values were called before version 3: messages say how they are called now.
FORMER = {
  'exchange_share': 'drop_fraction',
  'n_of_m': 'n_m',
  'round_share': 'round_fraction',
  'rounds': 'iterative',
  'target': 'density',
  'unit': 'density_of',
}


def hint(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
  """Returns how a setting or a value is called now, else the nearest of those that are known.

  Example:
    >>> hint('prune.target', ['prune.density']), hint('desnity', ['density'])
    (" it is called 'prune.density' now", " did you mean 'density'?")
  """
  known = list(known)
  block, dot, key = name.rpartition('.')
  now = f'{block}{dot}{FORMER.get(key, key)}'
  return f" it is called '{now}' now" if now in known else nearest(name, known, cutoff=cutoff)


REGISTERED_NAMES: dict[str, set[str]] = {}  # by kind of part: the names given to `register`


@dataclasses.dataclass(frozen=True)
class Choice(Word):
  """One of several names.

  Attributes:
    names: the names that are always allowed.
    own: the kind of registered part that may also be named; '' if there is none.
  """

  names: tuple[str, ...]
  own: str = ''

  @property
  def every(self) -> tuple[str, ...]:
    return (*self.names, *sorted(REGISTERED_NAMES.get(self.own, ())))

  @property
  def requirement(self) -> str:
    return f'one of {", ".join(self.every)}'

  def convert(self, value: Any) -> str:
    if not isinstance(value, str) or value not in self.every:
      near = hint(str(value), self.every, cutoff=0.5)
      raise WrongError(f'{self.requirement};{near}' if near else self.requirement)
    return value


@dataclasses.dataclass(frozen=True)
class Optional(Kind):
  """What another kind takes, and also None."""

  kind: Kind

  @property
  def requirement(self) -> str:
    return f'{self.kind.requirement}, or None'

  def convert(self, value: Any) -> Any:
    return None if value is None else _reworded(self.requirement, self.kind.convert, value)

  def parse(self, text: str) -> Any:
    return None if text == 'None' else _reworded(self.requirement, self.kind.parse, text)


def _reworded(message, convert, value):
  """Returns `convert(value)`; an error's message is replaced by `message`."""
  try:
    return convert(value)
  except WrongError:
    raise WrongError(message) from None


@dataclasses.dataclass(frozen=True)
class Names(Kind):
  """A tuple of names, each once."""

  requirement = "a tuple of names, each once, such as ('prune',)"

  def convert(self, value: Any) -> tuple[str, ...]:
    names = tuple(value) if isinstance(value, tuple | list) else None
    if names is None or not all(isinstance(n, str) and n.isprintable() for n in names):
      raise WrongError(self.requirement)
    return names


@dataclasses.dataclass(frozen=True)
class Patterns(Kind):
  """A tuple of regular expressions."""

  requirement = "a tuple of regular expressions, such as ('^classifier/',)"

  def convert(self, value: Any) -> tuple[str, ...]:
    found = tuple(value) if isinstance(value, tuple | list) else None
    if found is None or not all(isinstance(p, str) and _compiles(p) for p in found):
      raise WrongError(self.requirement)
    return found


@dataclasses.dataclass(frozen=True)
class Pattern(Word):
  """A regular expression."""

  requirement = 'a regular expression'

  def convert(self, value: Any) -> str:
    if not isinstance(value, str) or not _compiles(value):
      raise WrongError(self.requirement)
    return value


def _compiles(pattern: str) -> bool:
  try:
    re.compile(pattern)
  except (re.error, OverflowError, RecursionError):
    return False
  return True


@dataclasses.dataclass(frozen=True)
class Sides(Kind):
  """Two lengths."""

  requirement = 'two integers of 1 or more, such as (4, 4)'

  def convert(self, value: Any) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(sides) != 2 or not all(isinstance(s, int) and s > 0 for s in sides):
      raise WrongError(self.requirement)
    return sides


@dataclasses.dataclass(frozen=True)
class Table(Kind):
  """Values of one kind, under names that the user chooses."""

  kind: Kind

  @property
  def requirement(self) -> str:
    return f'a table by name, each {self.kind.requirement}'

  def convert(self, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
      raise WrongError(self.requirement)
    return {
      name: _reworded(self.requirement, self.kind.convert, one) for name, one in value.items()
    }


@dataclasses.dataclass(frozen=True)
class ByLayer(Kind):
  """A number for all layers, or a string with one for each: 'conv=0.5,^head=1.0,.*=0.1'.

  A mapping would do in Python, but a ConfigDict sorts its keys, and the first expression counts.

  Example:
    >>> kind = ByLayer(Number(0.0, 1.0))
    >>> kind.convert(0.5), kind.convert('conv=.5, .*=0.1')
    (0.5, 'conv=0.5,.*=0.1')
  """

  kind: Number

  @property
  def requirement(self) -> str:
    return (
      f"{self.kind.requirement}, or a string such as 'conv=0.5,.*=0.1' with one for each expression"
    )

  def convert(self, value: Any) -> float | str:
    if not isinstance(value, str) or '=' not in value:
      return _reworded(self.requirement, self.kind.convert, value)
    requirement = f'{self.kind.requirement} for each expression'
    found = {
      pattern: _reworded(requirement, self.kind.convert, n)
      for pattern, n in by_layer(value).items()
    }
    return ','.join(f'{pattern}={number!r}' for pattern, number in found.items())


# An expression may have commas and equal signs: it ends at an equal sign before a number.
ENTRY = re.compile(
  r'\s*(?P<pattern>[^,\s].*?)\s*=\s*(?P<number>[-+]?[\d.]+(e[-+]?\d+)?)\s*(,(?=.)|$)', re.IGNORECASE
)


def by_layer(text: str) -> dict[str, float]:
  """Returns {expression: number} of a string, in its order.

  Raises:
    WrongError: the string has another form, an expression twice, or one that does not compile.

  Example:
    >>> by_layer('conv[1,2]=0.5,.*=0.1')
    {'conv[1,2]': 0.5, '.*': 0.1}
  """
  found: dict[str, float] = {}
  end = 0
  while end < len(text):
    entry = ENTRY.match(text, end)
    if entry is None:
      raise WrongError(f'EXPRESSION=NUMBER,EXPRESSION=NUMBER, which {shown(text[end:])} is not')
    pattern = entry['pattern']
    end = entry.end()
    if not _compiles(pattern):
      raise WrongError(f'numbers by regular expressions, which {shown(pattern)} is not')
    if pattern in found:
      raise WrongError(f'one number for each expression, but {shown(pattern)} has two')
    try:
      found[pattern] = float(entry['number'])
    except ValueError:
      raise WrongError(
        f'numbers by expression, but {shown(pattern)} has {entry["number"]}'
      ) from None
  return found


@dataclasses.dataclass(frozen=True)
class Scheduled(Kind):
  """A number, or a schedule's block instead of it."""

  kind: Kind

  @property
  def requirement(self) -> str:
    return f"{self.kind.requirement}, or a schedule's block"

  def convert(self, value: Any) -> Any:
    return (
      value if isinstance(value, Mapping) else _reworded(self.requirement, self.kind.convert, value)
    )
