"""What a search could not train is refused before it begins; what it would not compare is told."""

import re

import pytest

from sparsejax import sweep_worker
from sparsejax.search.plan import base, ends, settings

RATE = 'scale_by_learning_rate.learning_rate'
BRACKETS = {'name': 'hyperband', 'eta': 3}


def uniform(key, low, high, kind='uniform'):
  return {'key': key, 'kind': kind, 'low': low, 'high': high}


def choices(key, *values):
  return {'key': key, 'kind': 'choices', 'choices': values}


def check(*space, overrides=(), with_ends=True, **changes):
  """Settings of the quick start: digits, 9 epochs, a cut to 5 % after half an epoch."""
  given = ('epochs=9.0', 'prune.begin_epochs=0.5', *overrides)
  by_field = {text.partition('=')[0]: text for text in given}  # each once, the last one counts
  varied = {one['key'] for one in space}
  overrides = tuple(text for field, text in by_field.items() if field not in varied)
  asked = base.get_config().to_dict() | {'space': space, 'overrides': overrides} | changes
  resolve = sweep_worker.resolver(overrides)
  return ends.check(settings.check(asked, resolve), resolve, with_ends=with_ends)


WRONG = {
  'a density': (
    [uniform('prune.density', 0.1, 1.5)],
    r"space: 'prune.density' at 1.5 of configs/quickstart.py: prune.density=1.5 must be in",
  ),
  'a lower end': (
    [uniform(f'{RATE}.value', -0.5, 0.5)],
    f"space: '{RATE}.value' at -0.5 of .*: {RATE}.value=-0.5 must be a number of 0 or more",
  ),
  'a choice in the middle': (
    [choices('batch_size', 16, 100_000, 32)],
    "space: 'batch_size' at 100000 of .*: batch_size=100000 must be at most the 1197",
  ),
  'an argument': (
    [choices('argument', '0.05', 'few')],
    "configs: configs/quickstart.py:few: .*density 'few' must be a number",
  ),
  'a factor that nothing falls by': (
    [uniform(f'{RATE}.factor', 0.1, 0.5)],
    f"'{RATE}.factor' has no effect: {RATE} is the same at every step with 0.1 and 0.5",
  ),
  'a setting that the schedule does not read': (
    [uniform('prune.every_steps', 10, 50, 'integers')],
    "'prune.every_steps' has no effect on configs/quickstart.py: it is read only with the prune",
  ),
  'the seed of a split that is one': (
    [uniform('data.split_seed', 0, 9, 'integers')],
    "'data.split_seed' has no effect on .*: it is read only with the data.split 'shuffle'",
  ),
}


@pytest.mark.parametrize('case', WRONG)
def test_refused_with_the_field_the_value_and_what_is_allowed(case):
  space, message = WRONG[case]
  with pytest.raises(ValueError, match=message) as error:
    check(*space)
  assert '\n' not in str(error.value)


def test_ends_that_can_be_are_no_matter():
  assert check(uniform('prune.density', 0.1, 1.0), choices('batch_size', 16, 32)) == []


def test_a_value_that_can_be_with_another_choice_only_is_none_to_refuse():
  schedules = choices('prune.schedule', 'one_shot', 'periodic')  # periodic exchanges weights
  rules = choices('prune.update_rule', 'nested', 'set')
  share = uniform('prune.drop_fraction', 0.1, 0.5)
  inner = ("prune.inner=('trace', 'scale_by_learning_rate')", "chain=('prune',)")
  overrides = (*inner, 'prune.end_epochs=5.0')
  assert check(schedules, rules, share, overrides=overrides) == []
  with pytest.raises(ValueError, match=r"'prune.drop_fraction' has no effect"):
    check(share, overrides=overrides)


def test_a_schedules_setting_is_read_with_another_of_the_same_schedule():
  every = uniform(f'{RATE}.every_epochs', 2.0, 20.0)
  assert check(uniform(f'{RATE}.factor', 0.1, 0.5), every) == []


def test_a_search_that_goes_on_is_not_built_again():
  space = uniform('prune.density', 0.1, 1.5)
  assert check(space, with_ends=False) == []
  with pytest.raises(ValueError, match=r'^configs: configs/quickstart.py: config.prune.density=2'):
    check(
      uniform('batch_size', 1, 9, 'integers'), overrides=('prune.density=2.0',), with_ends=False
    )


@pytest.mark.parametrize(
  ('begin', 'scheduler', 'early'),
  [
    (1.0, BRACKETS, '1'),  # evaluated at the step of the cut, before it
    (0.5, BRACKETS, None),
    (5.0, BRACKETS, '1, 3'),
    (5.0, BRACKETS | {'name': 'optuna_hyperband'}, '1, 3'),
    (5.0, BRACKETS | {'name': 'none'}, None),
  ],
)
def test_rungs_before_the_cut_are_told(begin, scheduler, early):
  overrides = (f'prune.begin_epochs={begin}',)
  warnings = check(choices('batch_size', 16, 32), overrides=overrides, scheduler=scheduler)
  if early is None:
    assert warnings == []
  else:
    (line,) = warnings
    assert f'networks compared after {early} epochs are not pruned yet' in line
    assert f'prune begins at epoch {begin:g}' in line


@pytest.mark.parametrize(
  ('default', 'space', 'epoch'),
  [
    (0.5, [uniform('prune.begin_epochs', 0.5, 5.0)], 5),
    (5.0, [uniform('prune.begin_epochs', 0.25, 0.5)], None),  # the default is never tried
    (5.0, [choices('batch_size', 16, 32)], 5),  # the begin is in epochs whatever the batch
    (  # 74 steps are two epochs: the first cut of a cubic is so much after its begin
      0.5,
      [uniform('prune.begin_epochs', 0.5, 4.0), uniform('prune.every_steps', 37, 74, 'integers')],
      6,
    ),
  ],
)
def test_the_begin_that_is_told_is_the_latest_of_the_space(default, space, epoch):
  overrides = [f'prune.begin_epochs={default}']
  if len(space) > 1:
    overrides += ['prune.schedule=cubic', 'prune.end_epochs=8.0']
  warnings = check(*space, overrides=overrides, scheduler=BRACKETS)
  assert [re.search(r'at epoch ([\d.]+);', line)[1] for line in warnings] == (
    [] if epoch is None else [str(epoch)]
  )


def test_a_value_that_is_possible_with_others_of_the_space_is_no_mistake():
  """The end's default, epoch 120, lies after these runs' last; the space replaces it."""
  schedule = choices('prune.schedule', 'one_shot', 'cubic')
  end = uniform('prune.end_epochs', 2.0, 8.0)
  assert check(schedule, end, scheduler=BRACKETS | {'name': 'none'}) == []
