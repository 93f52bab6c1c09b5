"""What a sweep's config may say: the space, the goals, the plan; and every way to get it wrong."""

import copy
import math

import pytest

from sparsejax.search.plan import base, settings, space

CONFIG = {
  'epochs': 9.0,
  'seed': 0,
  'batch_size': 32,
  'evaluation': {'every_epochs': 1.0},
  'scale_by_learning_rate': {'learning_rate': 0.1},
  'trace': {'decay': 0.9, 'nesterov': False},
  'data': {'limit': None},
  'log': {'every_steps': 5},
  'chain': ('trace', 'scale_by_learning_rate'),
}
KEY = 'scale_by_learning_rate.learning_rate'
RATE = {'key': KEY, 'kind': 'log_uniform', 'low': 0.01, 'high': 1.0}
BATCH = {'key': 'batch_size', 'kind': 'choices', 'choices': (16, 32)}


def resolve(config):
  """A config whose argument is its rate's value, cut to an integer: the log's mistake."""
  found = copy.deepcopy(CONFIG)
  if ':' in config:
    found['scale_by_learning_rate']['learning_rate'] = float(int(float(config.partition(':')[2])))
  return found


def sweep(**changes):
  config = base.get_config().to_dict() | {'space': (RATE,)}
  config['scheduler'] = config['scheduler'] | changes.pop('scheduler', {})
  return config | changes


def test_a_changed_default_is_seen():
  """Or a search that began before it would be refused as another one."""
  assert base.get_config().to_dict() == {
    'configs': ('configs/quickstart.py',),
    'overrides': (),
    'seeds': (0,),
    'space': (),
    'sampler': 'random',
    'sampler_seed': 0,
    'trials': 27,
    'scheduler': {'name': 'hyperband', 'eta': 3},
    'objectives': ({'metric': 'validation_loss', 'direction': 'minimize'},),
    'constraints': (),
    'deaths': 5,
  }


def test_hyperband_over_one_parameter():
  found = settings.check(sweep(), resolve)
  assert [parameter.key for parameter in found.parameters] == [KEY]
  assert len(found.slots) == 9 + 3 + 1 + 5 + 1 + 3
  assert found.combinations is None


def test_a_grid_is_every_combination_in_full_length():
  configs = ('a.py:1', 'a.py:2')
  asked = sweep(
    space=(BATCH,), sampler='grid', seeds=(0, 1, 2), configs=configs, scheduler={'name': 'none'}
  )
  found = settings.check(asked, resolve)
  assert len(found.slots) == len(found.combinations) == 2 * 2 * 3
  assert found.combinations[1] == {'batch_size': 16, 'config': 'a.py:1', 'seed': 1}
  assert all(slot.is_last and slot.epochs == 9 for slot in found.slots)
  trial = settings.resolved(found.settings, found.combinations[-1], resolve)
  assert (trial['batch_size'], trial['seed']) == (32, 2)
  assert trial['scale_by_learning_rate']['learning_rate'] == 2.0


def test_optunas_pruner_starts_so_many_trials():
  found = settings.check(sweep(scheduler={'name': 'optuna_hyperband'}, trials=7), resolve)
  assert [slot.epochs for slot in found.slots] == [9] * 7


WRONG = {
  'an argument twice': (
    {
      'space': ({'key': 'argument', 'kind': 'choices', 'choices': ('1', '2')},),
      'configs': ('a.py:1',),
    },
    "'a.py:1' has an argument, and so has the space",
  ),
  'one experiment twice': (
    {
      'space': (BATCH,),
      'sampler': 'grid',
      'scheduler': {'name': 'none'},
      'configs': ('a.py:1', 'a.py:1.5'),
    },
    'are the same experiment',
  ),
  'no config': ({'configs': ()}, r'configs=\(\) must name one'),
  'nothing varies': ({'space': ()}, r'space=\(\): nothing varies'),
  'no overrides': ({'overrides': None}, "overrides=None must be a tuple of strings 'FIELD=VALUE'"),
  'an override of text': ({'overrides': 'epochs=3'}, "overrides='epochs=3' must be a tuple of"),
  'an override without a value': ({'overrides': ('epochs',)}, "overrides: 'epochs' must be"),
  'an override without a field': ({'overrides': ('=3',)}, "overrides: '=3' must be FIELD=VALUE"),
  'the seed among the overrides': (
    {'overrides': ('seed=5',)},
    r"overrides: 'seed=5': the seeds of a search are set by its `seeds`, as in seeds=\(5,\)",
  ),
  'an override twice': (
    {'overrides': ('prune.begin_epochs=3', 'prune.begin_steps=4')},
    'overrides: prune.begin_steps is set twice, as prune.begin_epochs=3 and prune.begin_steps=4',
  ),
  'an override of what varies': (
    {'overrides': (f'{KEY}=0.3',)},
    f"overrides: '{KEY}=0.3' would never be used, since the space varies '{KEY}'",
  ),
  'absent key': (
    {'space': (RATE | {'key': KEY[:-1]},)},
    f"unknown field 'config.{KEY[:-1]}': did you",
  ),
  'absent block': (
    {'space': (RATE | {'key': 'prune.density'},)},
    "'prune' is not in chain, events or layers",
  ),
  'an argument without effect': (
    {
      'space': ({'key': 'argument', 'kind': 'uniform', 'low': 0.1, 'high': 0.9},),
      'configs': ('a.py',),
    },
    "'argument' has no effect: a.py is the same experiment with 0.1 and 0.3",
  ),
  'two choices that are one': (
    {
      'space': ({'key': 'argument', 'kind': 'choices', 'choices': ('1', '2', '2.5', '3')},),
      'configs': ('a.py',),
    },
    "'argument' has no effect: a.py is the same experiment with 2 and 2.5",
  ),
  'how it is logged': (
    {'space': ({'key': 'log.every_steps', 'kind': 'integers', 'low': 1, 'high': 9},)},
    "'log.every_steps' has no effect",
  ),
  'a float in an integer': (
    {'space': (RATE | {'key': 'batch_size'},)},
    'batch_size=0.01 must be an integer of 1 or more',
  ),
  'a text in a truth': (
    {'space': ({'key': 'trace.nesterov', 'kind': 'choices', 'choices': ('yes', 'no')},)},
    "trace.nesterov='yes' must be True or False",
  ),
  'a key twice': ({'space': (RATE, RATE)}, f"'{KEY}' is given twice"),
  'no key': ({'space': ({'kind': 'uniform'},)}, 'has no key'),
  'kind': ({'space': (RATE | {'kind': 'normal'},)}, f"unknown kind of '{KEY}' 'normal'"),
  'bound missing': (
    {'space': ({'key': KEY, 'kind': 'uniform', 'low': 0.1},)},
    'must have low, high; high is wrong',
  ),
  'low above high': ({'space': (RATE | {'low': 2.0},)}, 'from 2.0 to 1.0: low must be a number'),
  'nan': ({'space': (RATE | {'low': math.nan},)}, 'from nan to 1.0'),
  'integers without end': (
    {'space': ({'key': 'batch_size', 'kind': 'integers', 'low': 1, 'high': 2**53 + 1},)},
    'low must be a number below high',
  ),
  'beyond float32': ({'space': (RATE | {'high': 1e308},)}, 'low must be a number below high'),
  'log of 0': ({'space': (RATE | {'low': 0.0},)}, 'from 0.0: low must be more than 0'),
  'one choice': ({'space': (BATCH | {'choices': (16,)},)}, 'must have two choices'),
  'a choice twice': ({'space': (BATCH | {'choices': (16, 16)},)}, 'each choice once'),
  'a choice of tuples': (
    {'space': (BATCH | {'choices': ((1,), (2,))},)},
    'a choice must be a number, a string',
  ),
  'float integers': (
    {'space': ({'key': 'batch_size', 'kind': 'integers', 'low': 1.5, 'high': 3.0},)},
    'both must be integers',
  ),
  'sampler': ({'sampler': 'tpa'}, "unknown sampler 'tpa': did you mean 'tpe'"),
  'scheduler': ({'scheduler': {'name': 'asha'}}, "unknown scheduler.name 'asha'"),
  'test metric': (
    {'objectives': ({'metric': 'test_accuracy', 'direction': 'maximize'},)},
    "'test_accuracy': the test set is for reporting",
  ),
  'metric': (
    {'objectives': ({'metric': 'validation_los', 'direction': 'minimize'},)},
    "did you mean 'validation_loss'",
  ),
  'direction': (
    {'objectives': ({'metric': 'validation_loss', 'direction': 'min'},)},
    "unknown direction 'min'",
  ),
  'constraint': (
    {'constraints': ({'metric': 'validation_loss'},)},
    'must have metric and at_most',
  ),
  'two objectives in brackets': (
    {
      'objectives': (
        {'metric': 'validation_loss', 'direction': 'minimize'},
        {'metric': 'active_fraction', 'direction': 'minimize'},
      )
    },
    "objectives: 2 with the scheduler 'hyperband'; give one",
  ),
  'epochs in brackets': ({'space': (RATE | {'key': 'epochs'},)}, "'epochs' is set by the brackets"),
  'seed in the space': (
    {'space': ({'key': 'seed', 'kind': 'choices', 'choices': (0, 1)},)},
    'give it in `seeds`',
  ),
  'seeds without a grid': ({'seeds': (0, 1)}, "must be a single seed with the sampler 'random'"),
  'grid without choices': (
    {'sampler': 'grid', 'scheduler': {'name': 'none'}},
    f"'{KEY}' must be of the kind 'choices' in a grid",
  ),
  'grid in brackets': (
    {'sampler': 'grid', 'space': (BATCH,)},
    "scheduler.name='hyperband' must be 'none'",
  ),
  'trials': ({'scheduler': {'name': 'none'}, 'trials': 0}, 'trials=0 must be an integer of 1'),
  'eta': ({'scheduler': {'eta': 1}}, 'scheduler.eta=1 must be an integer of 2 or more'),
  'no seed': ({'seeds': ()}, r'seeds=\(\) must have one integer or more'),
  'a seed of text': ({'seeds': ('a',)}, "seeds='a' must be an integer of 0 or more"),
  'a negative seed': ({'seeds': (-1,)}, 'seeds=-1 must be an integer of 0 or more'),
  'seed of the sampler': ({'sampler_seed': -1}, 'sampler_seed=-1 must be an integer of 0 or more'),
  'large seed of the sampler': ({'sampler_seed': 2**32}, 'sampler_seed=4294967296 must be an'),
  'deaths': ({'deaths': -1}, 'deaths=-1 must be an integer of 0 or more'),
  'half a death': ({'deaths': 0.5}, 'deaths=0.5 must be an integer of 0 or more'),
  'trials without end': (
    {'scheduler': {'name': 'none'}, 'trials': 10**9},
    'trials=1000000000 must be an integer of 1 or more, up to 65536',
  ),
}


@pytest.mark.parametrize('case', WRONG)
def test_refused_in_one_line(case):
  changes, message = WRONG[case]
  with pytest.raises(ValueError, match=message) as error:
    settings.check(sweep(**changes), resolve)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'epochs': 4.5}, 'epochs=4.5 must be a whole number with brackets'),
    ({'evaluation': {'every_epochs': 2.0}}, 'nothing is evaluated at epoch 1, where a trial'),
    ({'evaluation': {'every_steps': 5}}, 'every_epochs=None: nothing is evaluated'),
  ],
)
def test_a_config_that_brackets_do_not_fit(changes, message):
  with pytest.raises(ValueError, match=message):
    settings.check(sweep(), lambda config: CONFIG | changes)


def test_configs_of_different_lengths():
  lengths = {'a.py': 9.0, 'b.py': 10.0}
  with pytest.raises(ValueError, match='epochs must be the same in all configs'):
    settings.check(
      sweep(configs=tuple(lengths)),
      lambda config: CONFIG | {'epochs': lengths[config]},
    )


def warned(**changes):
  return settings.repeats(settings.check(sweep(**changes), resolve), resolve)


def test_experiments_that_are_drawn_again_are_told_of():
  """Brackets of 9 + 5 + 3 configurations, of which a space of 2 batches has no more than 2."""
  line = '17 configurations are drawn from 2 experiments, so about 2 of them will be different; '
  assert warned(space=(BATCH,)) == [f'{line}each is trained once, however often it is drawn']
  sizes = {'key': 'batch_size', 'kind': 'integers', 'low': 1, 'high': 100}
  (line,) = warned(space=(sizes,))
  assert line.startswith('17 configurations are drawn from 100 experiments, so about 16 of them')
  large = {'key': 'batch_size', 'kind': 'integers', 'low': 1, 'high': 10**6}
  assert warned(space=(large,)) == []
  fields = ('data.limit', 'batch_size')
  two = [{'key': key, 'kind': 'integers', 'low': 1, 'high': 2**53} for key in fields]
  assert warned(space=two) == []
  assert warned(space=(RATE, BATCH)) == []
  assert warned(space=(BATCH,), sampler='grid', scheduler={'name': 'none'}) == []


def test_apply_changes_a_copy():
  values = {KEY: 1, 'data.limit': 5, 'chain': ['adam', 'prune']}
  changed = space.apply(CONFIG, values)
  assert changed['scale_by_learning_rate'] == {'learning_rate': 1.0}
  assert isinstance(changed['scale_by_learning_rate']['learning_rate'], float)
  assert changed['data']['limit'] == 5
  assert changed['chain'] == ('adam', 'prune')
  assert CONFIG['scale_by_learning_rate'] == {'learning_rate': 0.1}


SATISFICING = {
  'objectives': [{'metric': 'active_fraction', 'direction': 'minimize'}],
  'constraints': [{'metric': 'validation_loss', 'at_most': 0.0766}],
}


def test_what_holds_its_constraint_is_better_than_all_that_breaks_it():
  """The log's rule: the active fraction, once the validation loss is under its bound."""
  small_but_bad = {'active_fraction': 0.001, 'validation_loss': 0.08}
  worse = {'active_fraction': 0.001, 'validation_loss': 0.09}
  large = {'active_fraction': 0.9, 'validation_loss': 0.0766}
  small = {'active_fraction': 0.1, 'validation_loss': 0.05}
  not_finite = {'active_fraction': 0.1, 'validation_loss': math.nan}
  ranked = [small, large, small_but_bad, worse]
  scores = [settings.score(SATISFICING, metrics) for metrics in ranked]
  assert scores == sorted(scores)
  assert len(set(scores)) == 4
  assert settings.score(SATISFICING, not_finite) == settings.score(SATISFICING, None) > scores[-1]
  assert settings.excesses(SATISFICING, small) == [pytest.approx(-0.0266)]
  assert settings.excesses(SATISFICING, worse) == [pytest.approx(0.0134)]


def test_accuracy_is_better_where_it_is_higher():
  goals = {
    'objectives': [{'metric': 'validation_accuracy', 'direction': 'maximize'}],
    'constraints': [],
  }
  low, high = ({'validation_accuracy': value} for value in (0.9, 0.99))
  assert settings.score(goals, high) < settings.score(goals, low)
