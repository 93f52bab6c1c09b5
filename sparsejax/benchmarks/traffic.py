"""The bytes that devices exchange in a step: as predicted, and as found in the program."""

import math
import re
from typing import Any

import jax

METRICS = 2  # the batch's loss and accuracy, averaged together with the gradient
# `%x = (f32[3,4]{1,0}, f32[]) all-reduce(...)`; with -start if a backend runs it asynchronously.
ALL_REDUCE = re.compile(r'= (.+?) all-reduce(?:-start)?\(')
SHAPE = re.compile(r'([a-z]+\d+)\[([\d,]*)\]')


def predicted_bytes(variables: Any) -> int:
  """Returns the bytes that a step averages over its devices.

  They are 4 bytes for each entry of the gradients, of BatchNorm's running averages and of the
  metrics; an all-reduce in a ring sends 2 (n - 1) / n times as many from each of n devices.

  Args:
    variables: a network's variables, as init returns them: `params` and perhaps `batch_stats`.
  """
  return 4 * (sum(leaf.size for leaf in jax.tree.leaves(variables)) + METRICS)


def found_bytes(program: str) -> int:
  """Returns the bytes that every device contributes to the all-reduces of a program.

  Args:
    program: the text of a compiled program, in XLA's own language (HLO).

  Example:
    >>> found_bytes('%r = (f32[3,4]{1,0}, f32[]) all-reduce(%x, %y), to_apply=%add')
    52
  """
  shapes = (shape for result in ALL_REDUCE.findall(program) for shape in SHAPE.findall(result))
  return sum(
    math.prod(int(n) for n in dimensions.split(',') if n) * _size(kind)
    for kind, dimensions in shapes
  )


def _size(kind: str) -> int:
  """Returns the bytes of one number, such as 2 for `bf16`."""
  return int(kind.lstrip('bfsu')) // 8
