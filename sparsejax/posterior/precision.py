"""Bit widths: how precisely weights must be stored, given how uncertain the posterior leaves them.

A weight known to a standard deviation s need not be stored much more finely than s. Each layer gets
its own grid for all its weights; exponent and sign have one width in the whole network.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

FULL = 32  # bits of a float32 weight
MOST = 23  # bits of its significand
# What `compression` leaves out: the positions are those of the nonzeros. Everything that shows its
# figure says so in these words.
LEFT_OUT = 'positions and biases not counted'


class Grid(NamedTuple):
  """The numbers that a layer's weights are rounded to.

  significand: t; the grid consists of the multiples of 2^-t.
  bits: the bits of one weight: significand, exponent and sign.
  """

  significand: int
  bits: int


def significand_bits(variance: np.ndarray) -> int:
  r"""Returns the number of fractional bits that a layer's weights need, from their variances.

  .. math:: t = \lceil \mathrm{mean}_i \, |\{ t \in 1..23 : 2 \sigma_i^2 < 2^{-t} \}| \rceil

  Args:
    variance: the variances of the remaining weights, of any shape; if none remain, 0 bits suffice.

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
  r"""Returns the number of exponent bits that a network needs, given its largest weight.

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
    weights: the deployed kernels by layer; exact zeros need no bits.
    variances: their posterior variances by layer.

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
  r"""Returns the compression from pruning and bit widths; positions and biases are not counted.

  .. math:: 32 N / \sum_l n_l b_l

  This is the ratio that papers on Bayesian compression report. It counts the bits of the weights
  that are left, but not those that say where they are (the positions of the nonzeros), nor biases,
  so it is not a ratio of files: a file of the network is larger. The honest ratio is that of bytes,
  those of the dense float32 network over those of a model file. The command `sparsejax.ship` writes
  the file, with `--bits=posterior` in about these bits, and the ratio of bytes as
  `compression_in_bytes` in its shipped.json; `sparsejax.shipping.sizes` tells what the file's bytes
  are spent on.

  Args:
    sizes: for each layer, the numbers of its weights and of those left.
    bits: the grid of each layer.

  Example:
    >>> compression({'fc': (100, 10)}, {'fc': Grid(6, 8)})
    40.0
  """
  spent = sum(left * bits[layer].bits for layer, (_, left) in sizes.items())
  total = FULL * sum(whole for whole, _ in sizes.values())
  return total / spent if spent else math.inf
