"""A made text whose entropy is known: lines of nested expressions, drawn by a grammar.

Every choice has a probability in sixteenths, so it takes four random bits and its entropy is exact.
The alternatives of a symbol begin with different bytes. A line therefore tells the choices that
made it, and the entropy of a text is that of its choices: no model has a lower loss.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from sparsejax.experiment.data.splits import Whole
from sparsejax.experiment.data.texts import as_split

# {symbol: ((sixteenths, expansion), ...)}: a part of an expansion that is no symbol is text.
Rules = Mapping[str, tuple[tuple[int, tuple[str, ...]], ...]]
RULES: Rules = {
  'line': ((16, ('expression', '\n')),),
  'expression': (
    (8, ('name',)),
    (4, ('(', 'expression', 'operator', 'expression', ')')),
    (2, ('[', 'expression', ', ', 'expression', ']')),
    (2, ('-', 'expression')),
  ),
  'operator': ((8, (' + ',)), (4, ('*',)), (4, ('/',))),
  'name': ((8, ('alpha',)), (4, ('beta',)), (2, ('gamma',)), (2, ('delta',))),
}
START = 'line'
SIZES = {'train': 1_000_000, 'test': 100_000, 'validation': 100_000}  # bytes; the seed is the place


class Rate(NamedTuple):
  """The means of what a symbol becomes."""

  entropy: float  # nats of the choices below it
  length: float  # bytes

  @property
  def per_byte(self) -> float:
    """The entropy of an endless text of it, in nats per byte."""
    return self.entropy / self.length


def rate(rules: Rules = RULES, start: str = START) -> Rate:
  """Returns the entropy and the length of what a symbol becomes, on average.

  H(A) = sum_r p_r (-log p_r + sum_{B in r} H(B)),  L(A) = sum_r p_r (n_r + sum_{B in r} L(B)),
  where the expansion r has n_r bytes of its own.

  Args:
    rules: the grammar, in which the choices can be told from the text and end with probability 1.
    start: the symbol.

  Example:
    >>> found = rate({'S': ((8, ('a',)), (8, ('b', 'S')))}, 'S')  # H = log 2 + H / 2, L = 1 + L / 2
    >>> round(found.entropy / math.log(2), 12), found.length
    (2.0, 2.0)

  Source: Soule 1974, Entropies of probabilistic grammars
  """
  symbols = list(rules)
  expected = np.zeros((len(symbols), len(symbols)))  # of symbols in an expansion
  own = np.zeros((len(symbols), 2))
  for row, symbol in enumerate(symbols):
    for sixteenths, expansion in rules[symbol]:
      share = sixteenths / 16
      for part in expansion:
        if part in rules:
          expected[row, symbols.index(part)] += share
        else:
          own[row, 1] += share * len(part)
      own[row, 0] -= share * math.log(share)
  solved = np.linalg.solve(np.eye(len(symbols)) - expected, own)
  return Rate(*solved[symbols.index(start)].tolist())


def sample(size: int, seed: int, rules: Rules = RULES, start: str = START) -> bytes:
  """Returns the first bytes of an endless text, which no version of NumPy changes.

  Args:
    size: the number of bytes.
    seed: the seed of the choices.
    rules: the grammar.
    start: the symbol that is expanded again and again.

  Example:
    >>> sample(20, 0)
    b'alpha\\n[-(((-[gamma, '
  """
  tables = {
    symbol: [expansion[::-1] for sixteenths, expansion in found for _ in range(sixteenths)]
    for symbol, found in rules.items()
  }
  choices, stack, pieces, length = _sixteenths(seed), [], [], 0
  while length < size:
    part = stack.pop() if stack else start
    if part in tables:
      stack.extend(tables[part][next(choices)])
    else:
      pieces.append(part)
      length += len(part)
  return ''.join(pieces).encode()[:size]


def _sixteenths(seed: int) -> Iterator[int]:
  """Yields whole numbers from 0 to 15, the highest bits of PCG64, which stays as it is (NEP 19)."""
  bits = np.random.PCG64(seed)
  while True:
    yield from (bits.random_raw(4096) >> np.uint64(60)).tolist()


def read(directory: object = None, cache: bool = True) -> Whole:
  """Returns the grammar's text for training, test and validation, each from a seed of its own."""
  del directory, cache
  return Whole(
    **{part: as_split(sample(size, seed)) for seed, (part, size) in enumerate(SIZES.items())}
  )
