"""Layout: which axes of a leaf are stacks of layers, positions, heads, inputs, outputs.

Written as words in the order of the axes: a dense kernel of Flax is 'in out', of Equinox 'out in',
an image convolution 'position position in out', a query's projection 'in head out'. Axes that are
fused stand in parentheses. A head belongs to the side of the word after it: in 'in head out' to
the outputs, in 'head in out' (which puts the heads together again) to the inputs.

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
_WORDS = re.compile(r'\(([^()]*)\)|([^()\s]+)')


class Factor(NamedTuple):
  """A part of an axis: its role, and for a head also the side that it is on."""

  role: str
  side: str
  axis: int


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
  """

  text: str
  head: int | None = None

  def __post_init__(self) -> None:
    if _WORDS.sub('', self.text).strip():
      raise ValueError(f"layout '{self.text}' must be words, as in 'stack in (head out)'")
    for factor in self.factors:
      if factor.role not in ROLES:
        raise ValueError(f"layout '{self.text}': '{factor.role}' must be one of {', '.join(ROLES)}")
    roles = [factor.role for factor in self.factors]
    if roles.count('head') > 1:
      raise ValueError(f"layout '{self.text}' must have one head at most")
    fused = any(len(axis) > 1 for axis in self._axes)
    if any(len(axis) > 2 or (len(axis) == 2 and 'head' not in axis) for axis in self._axes):
      raise ValueError(f"layout '{self.text}': only a head and one more can be fused")
    if fused != (self.head is not None):
      needed = 'needs head=, their number' if fused else 'fuses no heads, and takes no head='
      raise ValueError(f"layout '{self.text}' {needed}")

  @functools.cached_property
  def _axes(self) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple((a or b).split()) for a, b in _WORDS.findall(self.text))

  @functools.cached_property
  def factors(self) -> tuple[Factor, ...]:
    """The parts of the axes in their order."""
    flat = [(role, axis) for axis, roles in enumerate(self._axes) for role in roles]
    found = []
    for i, (role, axis) in enumerate(flat):
      side = role
      if role == 'head':
        after = [r for r, _ in flat[i + 1 :] if r in SIDES]
        side = (after or [r for r, _ in flat[:i][::-1] if r in SIDES] or ['out'])[0]
      found.append(Factor(role, side, axis))
    return tuple(found)

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
    for size, roles in zip(shape, self._axes, strict=True):
      if len(roles) > 1 and size % (self.head or 1):
        raise ValueError(
          f"layout '{self.text}' of '{path}': head={self.head} must divide {size}, the axis that "
          'holds the heads'
        )

  # The sizes

  def sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the size of each factor."""
    found = []
    for size, roles in zip(shape, self._axes, strict=True):
      heads = self.head or 1
      for role in roles:
        found.append(size if len(roles) == 1 else heads if role == 'head' else size // heads)
    return tuple(found)

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
      values: of a leaf.
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
