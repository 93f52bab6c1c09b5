"""Times several things in turns, so that a machine's other load falls on all of them alike."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

Timed = Callable[[int], float]  # a number of steps -> the seconds they took


def alternate(
  timed: Mapping[str, Timed],
  *,
  rounds: int,
  seconds: float,
  note: Callable[[str], None] = lambda line: None,
) -> dict[str, list[float]]:
  """Times a block of steps of each in every round.

  A block of more than one step begins with a step that is not counted: the program that ran before
  may still hold a core for some milliseconds, waiting for work that does not come.

  Args:
    timed: what is timed, by name. Each is first called twice with 1, which may compile it.
    rounds: the number of rounds.
    seconds: roughly how long a block should last; it has at least one step.
    note: receives each line of progress.

  Returns:
    The seconds of one step in each round, by name.

  Example:
    >>> alternate({'nap': lambda steps: 0.5 * steps}, rounds=2, seconds=3.0)
    {'nap': [0.5, 0.5]}
  """
  counts = {}
  for name, run in timed.items():
    note(f'first steps: {name}')
    run(1)
    counts[name] = max(1, math.ceil(seconds / run(1)))
  found = {name: [] for name in timed}
  for index in range(rounds):
    note(f'round {index + 1} of {rounds}')
    for name, run in timed.items():
      if counts[name] > 1:
        run(1)
      found[name].append(run(counts[name]) / counts[name])
  return found


def repeated(call: Callable[[], Any]) -> Timed:
  """Returns a function from a number of calls to the seconds that they take, each waited for.

  Example:
    >>> calls = []
    >>> seconds = repeated(lambda: calls.append(1))(3)
    >>> len(calls)
    3
  """

  def run(count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
      jax.block_until_ready(call())
    return time.perf_counter() - begun

  return run


def median_ratio(times: Sequence[float], others: Sequence[float]) -> float:
  """Returns the median over the rounds of the ratio of two times in the same round.

  Example:
    >>> median_ratio([1.0, 4.0, 3.0], [1.0, 2.0, 1.0])
    2.0
  """
  return statistics.median(time / other for time, other in zip(times, others, strict=True))
