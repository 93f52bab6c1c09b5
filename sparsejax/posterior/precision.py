"""Bit widths: how precise weights need be, read off how uncertain a posterior leaves them.

A weight known to a standard deviation s need not be stored to much less than s. Each layer gets a
grid of its own, one for all its weights; exponent and sign are the same for the whole network.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

FULL = 32  # bits of a weight in float32
MOST = 23  # of its significand


class Grid(NamedTuple):
  """The numbers that a layer's weights are rounded to.

  significand: t, the grid is the multiples of 2^-t.
  bits: of one weight: significand, exponent and sign.
  """

  significand: int
  bits: int


def significand_bits(variance: np.ndarray) -> int:
  r"""Returns how many bits after the point a layer's weights need, from their variances.

  .. math:: t = \lceil \mathrm{mean}_i \, |\{ t \in 1..23 : 2 \sigma_i^2 < 2^{-t} \}| \rceil

  Args:
    variance: of the weights that are left, any shape; of none, 0 bits.

  Example:
    >>> significand_bits(np.array([2.0**-6, 2.0**-8]))  # 4 and 6
    5

  References:
    Louizos, Ullrich and Welling 2017, https://arxiv.org/abs/1705.08665, section 4.2
  """
  if not np.size(variance):
    return 0
  steps = 2.0 ** -np.arange(1, MOST + 1)
  fine = [np.count_nonzero(2 * np.ravel(variance) < step) for step in steps]
  return math.ceil(sum(fine) / np.size(variance))


def exponent_bits(largest: float) -> int:
  r"""Returns how many bits the exponents of a network need, of which this is the largest weight.

  .. math:: \lceil \log_2(\log_2 M + 1) + 1 \rceil, \quad M = \max(1, \max |w|)

  Example:
    >>> exponent_bits(0.3), exponent_bits(2.5)
    (1, 3)
  """
  return math.ceil(math.log2(math.log2(max(1.0, largest)) + 1) + 1)


def grids(
  weights: Mapping[str, np.ndarray], variances: Mapping[str, np.ndarray]
) -> dict[str, Grid]:
  """Returns the grid of each layer.

  Args:
    weights: by layer, the deployed kernels: what is exactly zero needs no bits.
    variances: by layer, the posterior variances of these.

  Example:
    >>> one = {'fc': np.array([[0.5, 0.0]])}
    >>> grids(one, {'fc': np.array([[2.0**-6, 1.0]])})
    {'fc': Grid(significand=4, bits=6)}
  """
  largest = max((float(np.max(np.abs(w), initial=0)) for w in weights.values()), default=0.0)
  exponent = exponent_bits(largest)
  found = {}
  for layer, kernel in weights.items():
    significand = significand_bits(variances[layer][kernel != 0])
    found[layer] = Grid(significand, significand + exponent + 1)
  return found


def round_to(values: np.ndarray, significand: int) -> np.ndarray:
  """Returns the nearest multiples of 2^-significand.

  Example:
    >>> round_to(np.array([0.3, -0.9]), 2).tolist()
    [0.25, -1.0]
  """
  step = 2.0**-significand
  return (np.round(np.asarray(values) / step) * step).astype(np.asarray(values).dtype)


def compression(sizes: Mapping[str, tuple[int, int]], bits: Mapping[str, Grid]) -> float:
  r"""Returns the compression by pruning and bit widths together.

  .. math:: 32 N / \sum_l n_l b_l

  Args:
    sizes: by layer, how many weights there were and how many are left.
    bits: by layer, its grid.

  Example:
    >>> compression({'fc': (100, 10)}, {'fc': Grid(6, 8)})
    40.0
  """
  spent = sum(left * bits[layer].bits for layer, (_, left) in sizes.items())
  total = FULL * sum(whole for whole, _ in sizes.values())
  return total / spent if spent else math.inf
