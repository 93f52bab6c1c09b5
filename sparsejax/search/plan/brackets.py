"""Hyperband's brackets: how many configurations train for how long, and which of them go on."""

from typing import NamedTuple


class Rung(NamedTuple):
  """A number of configurations, trained up to a number of epochs."""

  configurations: int
  epochs: int


def brackets(most_epochs: int, eta: int) -> list[tuple[Rung, ...]]:
  r"""Returns the rungs of every bracket, beginning with the bracket of the most configurations.

  .. math::
    s_{max} = \lfloor \log_\eta R \rfloor, \quad
    n = \lceil \tfrac{s_{max} + 1}{s + 1} \eta^s \rceil, \quad
    n_{i+1} = \lfloor n_i / \eta \rfloor, \quad
    r_i = \lfloor R \, \eta^{i - s} \rfloor

  for s from s_max down to 0. The logarithm is computed with integers, because the floor of the
  floating-point logarithm of 243 to base 3 is 4.

  Args:
    most_epochs: R, the most epochs that one configuration trains for.
    eta: one in `eta` configurations of a rung goes on.

  Raises:
    ValueError: R is below 1, or eta is below 2.

  Example:
    >>> for rungs in brackets(80, 3):
    ...   print(' -> '.join(f'{n}@{r}' for n, r in rungs))
    27@2 -> 9@8 -> 3@26 -> 1@80
    12@8 -> 4@26 -> 1@80
    6@26 -> 2@80
    4@80

  References:
    Li, Jamieson, DeSalvo, Rostamizadeh and Talwalkar 2018, https://arxiv.org/abs/1603.06560
  """
  if most_epochs < 1:
    raise ValueError(f'epochs={most_epochs} must be 1 or more')
  if eta < 2:
    raise ValueError(f'eta={eta} must be 2 or more')
  most = 0
  while eta ** (most + 1) <= most_epochs:
    most += 1
  return [_rungs(most_epochs, eta, s, most) for s in range(most, -1, -1)]


def _rungs(most_epochs: int, eta: int, s: int, most: int) -> tuple[Rung, ...]:
  configurations = -(-(most + 1) * eta**s // (s + 1))
  rungs = []
  for i in range(s + 1):
    rungs.append(Rung(configurations, most_epochs * eta**i // eta**s))
    configurations //= eta
  return tuple(rungs)


class Slot(NamedTuple):
  """One piece of work of a search: a configuration trained up to some epoch.

  A slot of a later rung has no configuration of its own: it is the `index`-th best of the rung
  before, and goes on from there.
  """

  bracket: int
  rung: int
  index: int
  epochs: int
  is_last: bool  # whether it ends with a finished run

  @property
  def key(self) -> str:
    return f'{self.bracket}.{self.rung}.{self.index}'


def plan(schedule: list[tuple[Rung, ...]]) -> list[Slot]:
  """Returns every slot of the brackets, in the order in which they should start.

  Example:
    >>> [slot.key for slot in plan(brackets(3, 3))]
    ['0.0.0', '0.0.1', '0.0.2', '0.1.0', '1.0.0', '1.0.1']
  """
  return [
    Slot(bracket, level, index, rung.epochs, level == len(rungs) - 1)
    for bracket, rungs in enumerate(schedule)
    for level, rung in enumerate(rungs)
    for index in range(rung.configurations)
  ]
