"""Schedules from settings: the values that the papers and the research log give, by hand."""

import math

import jax
import jax.numpy as jnp
import pytest

from sparsejax.experiment.chain import rates
from sparsejax.experiment.chain.durations import Clock

CIFAR = Clock(examples=40_000, batch_size=128, epochs=180.0)  # 312 steps an epoch
SMALL = Clock(examples=100, batch_size=10, epochs=4.0)  # 40 steps


def values(settings, steps, clock=SMALL):
  """The schedule at the steps as a training step asks for them: jitted, of an int32."""
  rate = jax.jit(rates.build(settings, clock))
  return [float(rate(jnp.int32(step))) for step in steps]


def near(*expected):
  return pytest.approx(list(expected), rel=1e-5, abs=1e-9)


def test_a_number_and_the_kind_constant_never_change():
  assert values(0.25, (0, 39, 1000)) == [0.25] * 3
  assert values(dict(schedule='constant', value=0.25), (0, 39, 1000)) == [0.25] * 3


def test_step_decay_falls_at_epochs_60_and_120_and_not_a_step_beside_them():
  settings = dict(schedule='step_decay', value=0.1, factor=0.1, every_epochs=60.0)
  drop = 60 * 312
  steps = (0, drop - 1, drop, 2 * drop - 1, 2 * drop, 3 * drop - 1)
  assert values(settings, steps, CIFAR) == near(0.1, 0.1, 0.01, 0.01, 0.001, 0.001)


def test_step_decay_is_exact_where_float32_holds_no_such_quotient():
  # Of 16,777,213 / 16,777,214 float32 makes 1, and would let the rate fall a step early.
  settings = dict(schedule='step_decay', value=1.0, factor=0.5, every_steps=2**24 - 2)
  assert values(settings, (2**24 - 3, 2**24 - 2)) == [1.0, 0.5]


def test_step_decay_may_stop_everything():
  settings = dict(schedule='step_decay', value=0.1, factor=0.0, every_steps=10)
  assert values(settings, (9, 10, 25)) == near(0.1, 0, 0)


def test_sgdr_restarts_at_epochs_10_30_and_70_and_ends_at_150():
  clock = Clock(examples=40_000, batch_size=128, epochs=150.0)
  settings = dict(schedule='sgdr', value=0.2, first_epochs=10.0, multiply=2.0)
  restarts = [epoch * 312 for epoch in (0, 10, 30, 70)]
  assert values(settings, restarts, clock) == near(0.2, 0.2, 0.2, 0.2)
  before = values(settings, [epoch * 312 - 1 for epoch in (10, 30, 70, 150)], clock)
  assert all(0 <= rate < 1e-6 for rate in before), before
  halfway = [epoch * 312 for epoch in (5, 20, 50, 110)]
  assert values(settings, halfway, clock) == near(0.1, 0.1, 0.1, 0.1)
  assert values(settings, [150 * 312], clock) == near(0)


def test_sgdr_is_the_formula_of_the_paper():
  settings = dict(schedule='sgdr', value=0.2, first_steps=4, multiply=2.0)
  cycle = [(t, 4) for t in range(4)] + [(t, 8) for t in range(8)] + [(t, 16) for t in range(16)]
  expected = [0.5 * 0.2 * (1 + math.cos(math.pi * t / length)) for t, length in cycle]
  assert values(settings, range(28)) == near(*expected)


def test_linear_between_its_begin_and_its_end():
  settings = dict(schedule='linear', initial=1.0, final=0.0, begin_steps=10, end_epochs=2.0)
  assert values(settings, (0, 10, 15, 20, 39)) == [1.0, 1.0, 0.5, 0.0, 0.0]
  whole_run = dict(schedule='linear', initial=0.0, final=2.0)
  assert values(whole_run, (0, 10, 40, 50)) == [0.0, 0.5, 2.0, 2.0]


def test_linear_meets_its_end_exactly_and_never_passes_it():
  for length in (1, 3, 7, 10, 49, 121, 1000):
    settings = dict(schedule='linear', initial=0.1, final=0.0, end_steps=length)
    *last, at, after = values(settings, (length - 1, length, length + 1))
    assert (at, after) == (0.0, 0.0)
    assert last == near(0.1 / length)


@pytest.mark.parametrize('value', [0.8, 0.0])
def test_cosine_over_the_whole_run(value):
  settings = dict(schedule='cosine', value=value, final=0.2)
  middle = 0.5 * (value + 0.2)
  quarter = 0.2 + (value - 0.2) * 0.5 * (1 + math.cos(math.pi / 4))
  assert values(settings, (0, 10, 20, 40, 50)) == near(value, quarter, middle, 0.2, 0.2)


def test_rewound_runs_the_last_steps_of_its_base_again_and_again():
  """Ten steps of 1, 1/2, 1/4 every four; then the last five, from step 5 on, twice and a bit."""
  base = dict(schedule='step_decay', value=1.0, factor=0.5, every_steps=4)
  settings = dict(schedule='rewound', base=base, length_steps=10, last_steps=5)
  once, again = [1.0] * 4 + [0.5] * 4 + [0.25] * 2, [0.5] * 3 + [0.25] * 2
  assert values(settings, range(22)) == once + again + again + again[:2]


def test_rewound_gives_its_base_a_run_of_its_own_length():
  """Half a cosine over one epoch of the four, then its second half again in each half epoch."""
  base = dict(schedule='cosine', value=0.8)
  settings = dict(schedule='rewound', base=base, length_epochs=1.0, last_epochs=0.5)
  cosine = [0.4 * (1 + math.cos(math.pi * t / 10)) for t in range(10)]
  assert values(settings, range(20)) == near(*cosine, *cosine[5:], *cosine[5:])
  assert cosine[5] == pytest.approx(0.4)


def test_rewound_by_its_whole_length_starts_anew_with_its_warm_up():
  base = dict(schedule='constant', value=0.8, warmup_steps=2)
  settings = dict(schedule='rewound', base=base, length_steps=3, last_steps=3)
  assert values(settings, range(6)) == near(0.4, 0.8, 0.8, 0.4, 0.8, 0.8)
  without = settings | {'last_steps': 1}
  assert values(without, range(6)) == near(0.4, 0.8, 0.8, 0.8, 0.8, 0.8)


def test_an_error_begins_with_the_field():
  block = dict(schedule='linear', initial=1.0, final=0.0, begin_steps=5, end_steps=5)
  with pytest.raises(ValueError, match=r'^link\.learning_rate: linear: from step 5 to step 5'):
    rates.build(block, SMALL, 'link.learning_rate')


def test_any_kind_can_warm_up():
  settings = dict(schedule='constant', value=0.8, warmup_steps=4)
  assert values(settings, (0, 1, 2, 3, 4, 30)) == near(0.2, 0.4, 0.6, 0.8, 0.8, 0.8)
  falling = dict(schedule='step_decay', value=0.8, factor=0.5, every_steps=2, warmup_epochs=0.4)
  assert values(falling, range(5)) == near(0.2, 0.4, 0.3, 0.4, 0.2)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    (dict(schedule='step_dekay', value=1.0), "'step_dekay': did you mean 'step_decay'?"),
    (dict(value=1.0), "unknown schedule 'None'"),
    (dict(schedule='step_decay', value=1.0, factor=0.1), "missing a required argument: 'every'"),
    (dict(schedule='constant', value=1.0, gamma=2), "unexpected keyword argument 'gamma'"),
    (dict(schedule='constant', value=1.0, total=2), "multiple values for argument 'total'"),
    (dict(schedule='constant', value=1.0, warmup_steps=-1), 'warmup_steps=-1 must be'),
    (
      dict(schedule='step_decay', value=1.0, factor=0.1, every_epochs=0.01),
      'step_decay: every=0 steps; it must be 1 or more',
    ),
    (
      dict(schedule='linear', initial=1.0, final=0.0, begin_steps=5, end_steps=5),
      'linear: from step 5 to step 5; end must be after begin',
    ),
    (
      dict(schedule='rewound', base=0.1, length_steps=5, last_steps=6),
      'rewound: last=6 of length=5 steps must be from 1 to the length',
    ),
    (
      dict(schedule='rewound', base=0.1, length_steps=5, last_steps=0),
      'rewound: last=0 of length=5 steps',
    ),
    (dict(schedule='rewound', base=0.1, last_steps=1), "missing a required argument: 'length'"),
    (dict(schedule='rewound', length_steps=5, last_steps=1), "required argument: 'base'"),
    (
      dict(schedule='rewound', base=dict(schedule='cosin'), length_steps=5, last_steps=1),
      "'cosin': did you mean 'cosine'?",
    ),
    (dict(schedule='sgdr', value=1.0, first_epochs=0.0), 'sgdr: first=0 steps and multiply=2.0'),
    (dict(schedule='sgdr', value=1.0, first_steps=1, multiply=0.5), 'multiply=0.5 must be 1'),
    (dict(schedule='sgdr', value=1.0, first_steps=1, multiply=math.nan), 'multiply=nan must be'),
    (dict(schedule='sgdr', value=1.0, first_steps=1, multiply=math.inf), 'multiply=inf must be'),
  ],
)
def test_an_impossible_schedule_is_refused_in_one_line(settings, message):
  with pytest.raises(ValueError) as error:
    rates.build(settings, SMALL)
  assert message in str(error.value)
  assert '\n' not in str(error.value)
