"""Layouts: which axes of a leaf are stacks of layers, positions, heads, inputs or outputs.

A layout is written as words in the order of the axes: a dense kernel of Flax is 'in out', of
Equinox 'out in'; an image convolution is 'position position in out', a query projection 'in head
out'. Fused axes are in parentheses, with a number for a factor of a fixed size: query, key and
value in one kernel are 'in (3 head out)'. A head belongs to the side of the word after it: to the
outputs in 'in head out', to the inputs in 'head in out' (an attention's output projection).

All code that depends on a shape uses a view of its layout: the stacked layers come first, and each
layer is unchanged, a matrix (*positions, inputs, outputs), or split by heads.
"""

import dataclasses
import functools
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp  # noqa: F401  (for the examples)

ROLES = ('stack', 'position', 'head', 'in', 'out')
SIDES = ('in', 'out')
LONE = ('head:in', 'head:out')  # an axis of heads alone, with the side that they are on
ALLOWED = ', '.join((*ROLES, *LONE))
_WORDS = re.compile(r'\(([^()]*)\)|([^()\s]+)')


class Factor(NamedTuple):
  """A factor of an axis: its role, its side (a head has one too), and its size if fixed."""

  role: str
  side: str
  axis: int
  size: int | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
  """The roles of a leaf's axes.

  Attributes:
    text: the roles, one word for each axis, fused ones in parentheses.
    head: the number of heads, if they are fused with another factor.

  Raises:
    ValueError: if a word is not a role, or heads are fused but their number is missing.

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
          f"layout '{self.text}': '{word}' must be 'head', which takes the side of the word "
          'that it is fused with'
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
        raise ValueError(f"layout '{self.text}': only a head and one other role can be fused")
    if self.head is not None and not (isinstance(self.head, int) and self.head > 0):
      raise ValueError(
        f"layout '{self.text}': head={self.head} must be an integer, 1 or more: the number of heads"
      )
    fused = any(len(axis) > 1 for axis in self._axes)
    if fused != (self.head is not None):
      needed = 'needs head=, the number of heads' if fused else 'fuses no heads, and takes no head='
      raise ValueError(f"layout '{self.text}' {needed}")

  @functools.cached_property
  def _words(self) -> tuple[tuple[str, ...], ...]:
    """The words of each axis, as written."""
    return tuple(tuple((a or b).split()) for a, b in _WORDS.findall(self.text))

  @functools.cached_property
  def _axes(self) -> tuple[tuple[str, ...], ...]:
    """The roles and numbers of each axis."""
    return tuple(tuple(word.partition(':')[0] for word in axis) for axis in self._words)

  @functools.cached_property
  def factors(self) -> tuple[Factor, ...]:
    """The factors of the axes, in order."""
    words = [(word, axis) for axis, words in enumerate(self._axes) for word in words]
    found = []
    for i, (word, axis) in enumerate(words):
      role, size = word, None
      if word == 'head' and len(self._axes[axis]) > 1:
        size = self.head
      elif word not in ROLES:
        role = next(w for w in self._axes[axis] if w in SIDES)
        size = int(word)
      side = self._side_of_head(i, words) if role == 'head' else role
      found.append(Factor(role, side, axis, size))
    return tuple(found)

  def _side_of_head(self, i: int, words: list[tuple[str, int]]) -> str:
    """Returns the written side, else the fused word's, else the next side word's, else 'out'."""
    axis = words[i][1]
    written = self._words[axis][0].partition(':')[2]
    if written:
      return written
    fused = [word for word in self._axes[axis] if word in SIDES]
    after = [word for word, _ in words[i + 1 :] if word in SIDES]
    return (fused or after or ['out'])[0]

  @property
  def rank(self) -> int:
    return len(self._axes)

  def check(self, path: str, shape: tuple[int, ...]) -> None:
    """Raises a ValueError if a leaf of this shape cannot have this layout."""
    if len(shape) != self.rank:
      raise ValueError(
        f"layout '{self.text}' of '{path}' has {self.rank} axes and must have {len(shape)}, like "
        f'its shape {tuple(shape)}'
      )
    for axis, size in enumerate(shape):
      fixed = self._fixed_size(axis)
      if size % fixed:
        raise ValueError(
          f"layout '{self.text}' of '{path}': {fixed}, with head={self.head}, must divide {size}, "
          'the size of the axis that holds the heads'
        )

  def _fixed_size(self, axis: int) -> int:
    """Returns the product of the fixed sizes of an axis' factors; 1 if there are none."""
    return math.prod(f.size for f in self.factors if f.axis == axis and f.size is not None)

  # The sizes

  def sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the size of each factor."""
    return tuple(
      shape[f.axis] // self._fixed_size(f.axis) if f.size is None else f.size for f in self.factors
    )

  def layers(self, shape: tuple[int, ...]) -> int:
    """Returns the number of layers that a leaf stacks.

    Example:
      >>> Layout('stack in out').layers((24, 8, 16))
      24
    """
    return math.prod(self.sizes(shape)[i] for i in self._indices('stack'))

  def heads(self, shape: tuple[int, ...]) -> int | None:
    """Returns the number of heads of a leaf, or None if its layout names none."""
    return self.sizes(shape)[self._indices('head')[0]] if self._indices('head') else None

  def matrix_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns (layers, *positions, inputs, outputs), without a side that has no axis."""
    sizes = self.sizes(shape)
    return tuple(math.prod(sizes[i] for i in axis) for axis in self._views['matrix'])

  # The views

  def view(self, values: jax.Array, name: str) -> jax.Array:
    """Returns a view of a leaf: the stacked layers first, then each layer in one of three ways.

    Args:
      values: the leaf's values.
      name: 'stacked' (the other axes unchanged), 'matrix' (*positions, inputs, outputs), or
        'by_head' (heads, everything else).

    Example:
      >>> Layout('out in position').view(jnp.ones((8, 3, 5)), 'matrix').shape
      (1, 5, 3, 8)
    """
    sizes = self.sizes(values.shape)
    axes = self._views[name]
    order = [i for axis in axes for i in axis]
    shape = tuple(math.prod(sizes[i] for i in axis) for axis in axes)
    return values.reshape(sizes).transpose(order).reshape(shape)

  def restore(self, view: jax.Array, name: str, shape: tuple[int, ...]) -> jax.Array:
    """Returns the leaf of this shape from its view of this name."""
    sizes = self.sizes(shape)
    order = [i for axis in self._views[name] for i in axis]
    back = [order.index(i) for i in range(len(order))]
    return view.reshape([sizes[i] for i in order]).transpose(back).reshape(shape)

  @functools.cached_property
  def _views(self) -> dict[str, list[list[int]]]:
    """{name of a view: the indices of the factors that each of its axes consists of}."""
    stack = self._indices('stack')
    places = range(len(self.factors))
    own = [
      [i for i in places if self.factors[i].axis == axis and i not in stack]
      for axis in range(self.rank)
    ]
    sides = [[i for i in places if self.factors[i].side == side] for side in SIDES]
    positions = [[i] for i in self._indices('position')]
    return {
      'stacked': [stack, *filter(None, own)],
      'matrix': [stack, *positions, *filter(None, sides)],
      'by_head': [stack, self._indices('head'), self._indices('position', *SIDES)],
    }

  def _indices(self, *roles: str) -> list[int]:
    return [i for i, factor in enumerate(self.factors) if factor.role in roles]


def of_text(value: 'str | Layout') -> Layout:
  """Returns the layout that is given as a Layout or as its words."""
  return value if isinstance(value, Layout) else Layout(value)
