"""Layout: which axes of a leaf are stacks of layers, positions, heads, inputs, outputs.

Written as words in the order of the axes: a dense kernel of Flax is 'in out', of Equinox 'out in',
an image convolution 'position position in out', a query's projection 'in head out'. Axes that are
fused stand in parentheses, with a number where a factor has a size of its own: query, key and value
in one kernel are 'in (3 head out)'. A head belongs to the side of the word after it: in 'in head
out' to the outputs, in 'head in out' (which puts the heads together again) to the inputs.

Whatever looks at a shape looks at it through a layout: a `view` has the layers that a leaf stacks
in front, each of them as it is, as a matrix (*positions, inputs, outputs), or by its heads.
"""

import dataclasses
import functools
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp  # noqa: F401  (of the examples)

ROLES = ('stack', 'position', 'head', 'in', 'out')
SIDES = ('in', 'out')
LONE = ('head:in', 'head:out')  # of an axis that is heads alone, with the side that they are on
ALLOWED = ', '.join((*ROLES, *LONE))
_WORDS = re.compile(r'\(([^()]*)\)|([^()\s]+)')


class Factor(NamedTuple):
  """A part of an axis: its role, a head's side too, and its size where that is told."""

  role: str
  side: str
  axis: int
  size: int | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
  """The roles of a leaf's axes.

  Attributes:
    text: the roles, one word an axis, fused ones in parentheses.
    head: how many heads there are, where an axis fuses them with something.

  Raises:
    ValueError: a word that is no role, or heads fused with something without their number.

  Example:
    >>> Layout('in head out').matrix_shape((16, 4, 8))
    (1, 16, 32)
    >>> Layout('(head out) in', head=4).matrix_shape((32, 16))
    (1, 16, 32)
    >>> Layout('in (3 head out)', head=4).view(jnp.ones((16, 48)), 'by_head').shape
    (1, 4, 192)
  """

  text: str
  head: int | None = None

  def __post_init__(self) -> None:
    if _WORDS.sub('', self.text).strip():
      raise ValueError(f"layout '{self.text}' must be words, as in 'stack in (head out)'")
    for word in (word for axis in self._words for word in axis):
      if word in LONE and (word,) not in self._words:
        raise ValueError(
          f"layout '{self.text}': '{word}' must be 'head', whose side is that of what it is fused "
          'with'
        )
      if word not in (*ROLES, *LONE) and not (word.isdecimal() and int(word) > 0):
        raise ValueError(f"layout '{self.text}': '{word}' must be one of {ALLOWED}")
    if [word for axis in self._axes for word in axis].count('head') > 1:
      raise ValueError(f"layout '{self.text}' must have one head at most")
    for axis in self._axes:
      roles = [word for word in axis if word in ROLES]
      if not roles:
        raise ValueError(
          f"layout '{self.text}': '{axis[0]}' must stand beside a head, in parentheses"
        )
      if axis != tuple(roles[:1]) and not (len(roles) == 2 and 'head' in roles):
        raise ValueError(f"layout '{self.text}': only a head and one more can be fused")
    if self.head is not None and not (isinstance(self.head, int) and self.head > 0):
      raise ValueError(
        f"layout '{self.text}': head={self.head} must be an integer, 1 or more: their number"
      )
    fused = any(len(axis) > 1 for axis in self._axes)
    if fused != (self.head is not None):
      needed = 'needs head=, their number' if fused else 'fuses no heads, and takes no head='
      raise ValueError(f"layout '{self.text}' {needed}")

  @functools.cached_property
  def _words(self) -> tuple[tuple[str, ...], ...]:
    """The words of each axis, as they were written."""
    return tuple(tuple((a or b).split()) for a, b in _WORDS.findall(self.text))

  @functools.cached_property
  def _axes(self) -> tuple[tuple[str, ...], ...]:
    """The roles of each axis, and numbers."""
    return tuple(tuple(word.partition(':')[0] for word in axis) for axis in self._words)

  @functools.cached_property
  def factors(self) -> tuple[Factor, ...]:
    """The parts of the axes in their order."""
    words = [(word, axis) for axis, words in enumerate(self._axes) for word in words]
    found = []
    for i, (word, axis) in enumerate(words):
      role, size = word, None
      if word == 'head' and len(self._axes[axis]) > 1:
        size = self.head
      elif word not in ROLES:
        role, size = next(w for w in self._axes[axis] if w in SIDES), int(word)
      side = self._side_of_head(i, words) if role == 'head' else role
      found.append(Factor(role, side, axis, size))
    return tuple(found)

  def _side_of_head(self, i: int, words: list[tuple[str, int]]) -> str:
    """The side that is told, else of what it is fused with, of the word after it, or outputs."""
    if told := self._words[words[i][1]][0].partition(':')[2]:
      return told
    fused = [word for word in self._axes[words[i][1]] if word in SIDES]
    after = [word for word, _ in words[i + 1 :] if word in SIDES]
    return (fused or after or ['out'])[0]

  @property
  def rank(self) -> int:
    return len(self._axes)

  def check(self, path: str, shape: tuple[int, ...]) -> None:
    """Raises a ValueError in one line where a leaf of this shape can't have this layout."""
    if len(shape) != self.rank:
      raise ValueError(
        f"layout '{self.text}' of '{path}' has {self.rank} axes and must have {len(shape)}, as its "
        f'shape {tuple(shape)}'
      )
    for axis, size in enumerate(shape):
      if size % (told := self._told(axis)):
        raise ValueError(
          f"layout '{self.text}' of '{path}': {told}, with head={self.head}, must divide {size}, "
          'the axis that holds the heads'
        )

  def _told(self, axis: int) -> int:
    """The product of the sizes that are told of an axis' factors; 1 where none is."""
    return math.prod(f.size for f in self.factors if f.axis == axis and f.size is not None)

  # The sizes

  def sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the size of each factor."""
    return tuple(
      shape[f.axis] // self._told(f.axis) if f.size is None else f.size for f in self.factors
    )

  def layers(self, shape: tuple[int, ...]) -> int:
    """Returns how many layers a leaf stacks.

    Example:
      >>> Layout('stack in out').layers((24, 8, 16))
      24
    """
    return math.prod(self.sizes(shape)[i] for i in self._of('stack'))

  def heads(self, shape: tuple[int, ...]) -> int | None:
    """Returns how many heads a leaf has, None where its layout names none."""
    return self.sizes(shape)[self._of('head')[0]] if self._of('head') else None

  def matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns (layers, *positions, inputs, outputs); a side that no axis is on is not there."""
    sizes = self.sizes(shape)
    return tuple(math.prod(sizes[i] for i in axis) for axis in self._views['matrix'])

  # The views

  def view(self, values: jax.Array, name: str) -> jax.Array:
    """Returns the layers that a leaf stacks, in front, each in one of three ways.

    Args:
      values: the leaf's values.
      name: 'stacked' (the other axes as they are), 'matrix' (*positions, inputs, outputs), or
        'by_head' (heads, everything else).

    Example:
      >>> Layout('out in position').view(jnp.ones((8, 3, 5)), 'matrix').shape
      (1, 5, 3, 8)
    """
    sizes, axes = self.sizes(values.shape), self._views[name]
    order = [i for axis in axes for i in axis]
    shape = tuple(math.prod(sizes[i] for i in axis) for axis in axes)
    return values.reshape(sizes).transpose(order).reshape(shape)

  def restore(self, view: jax.Array, name: str, shape: tuple[int, ...]) -> jax.Array:
    """Returns the leaf of this shape whose view of that name this is."""
    sizes = self.sizes(shape)
    order = [i for axis in self._views[name] for i in axis]
    back = [order.index(i) for i in range(len(order))]
    return view.reshape([sizes[i] for i in order]).transpose(back).reshape(shape)

  @functools.cached_property
  def _views(self) -> dict[str, list[list[int]]]:
    """What each axis of a view is made of, by the places of the factors."""
    stack, places = self._of('stack'), range(len(self.factors))
    own = [
      [i for i in places if self.factors[i].axis == axis and i not in stack]
      for axis in range(self.rank)
    ]
    sides = [[i for i in places if self.factors[i].side == side] for side in SIDES]
    positions = [[i] for i in self._of('position')]
    return {
      'stacked': [stack, *filter(None, own)],
      'matrix': [stack, *positions, *filter(None, sides)],
      'by_head': [stack, self._of('head'), self._of('position', *SIDES)],
    }

  def _of(self, *roles: str) -> list[int]:
    return [i for i, factor in enumerate(self.factors) if factor.role in roles]


def of_text(value: 'str | Layout') -> Layout:
  """Returns a layout that was given as such or as its words."""
  return value if isinstance(value, Layout) else Layout(value)
