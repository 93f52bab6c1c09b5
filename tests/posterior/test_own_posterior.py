"""A user's own family of posteriors: registered, trained, deployed, and part of the hash."""

import dataclasses
import json

import jax.numpy as jnp
import pytest
import registered

import sparsejax
from sparsejax import deploy, launch, posterior
from sparsejax.experiment.config import commandline
from sparsejax.experiment.machine import files
from sparsejax.posterior import Leaf, Moments

# Weights N(theta, s^2) with the prior N(0, 1): Bayes by backprop, sampled locally.
FAMILY = """
import jax.numpy as jnp

import sparsejax
from sparsejax import posterior
from sparsejax.posterior import Family, Leaf, Moments


def kl(leaves):
  return jnp.sum(posterior.kl.standard_normal_kl(leaves['kernel'], leaves['noise_log_variance']))


def log_alpha(leaves):
  return posterior.kl.log_alpha(leaves['kernel'], leaves['noise_log_variance'])


def moments(leaves):
  found = {'kernel': Moments(leaves['kernel'], jnp.exp(leaves['noise_log_variance']))}
  if 'bias' in leaves:
    found['bias'] = Moments(leaves['bias'], jnp.zeros_like(leaves['bias']))
  return found


def draw(leaves, x, linear, noise, *, temperature):
  mean = linear(x, leaves['kernel'])
  variance = linear(jnp.square(x), temperature * jnp.exp(leaves['noise_log_variance']))
  y = posterior.gaussian(mean, variance, noise)
  return y + posterior.along(leaves['bias'], y) if 'bias' in leaves else y


MINE = Family(
  leaves={'noise_log_variance': Leaf('weight')},
  kl=kl,
  log_alpha=log_alpha,
  moments=moments,
  draw=draw,
  threshold=0.0,
  log_variance=-8.0,
  settings={'temperature': 1.0},
)
sparsejax.register('posterior', 'backprop', MINE)
"""
CONFIG = (
  FAMILY
  + """

def get_config():
  from sparsejax.experiment.config import base

  chain = ('add_kl_gradients', 'scale_by_adam', 'scale_by_learning_rate')
  config = base.get_config(chain, layers='backprop')
  config.epochs = 2.0
  config.model.width = 16
  config.backprop.temperature = 0.5
  config.scale_by_learning_rate.learning_rate = 0.003
  return config
"""
)


@pytest.fixture(autouse=True)
def _forgotten(_from_the_root, compiling_is_quick):
  """What a test registers is gone after it."""
  yield
  registered.forget()


@pytest.fixture
def file(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(CONFIG)
  return path


def test_it_is_trained_and_deployed_anew_by_those_who_have_its_file(file, tmp_path, capsys):
  run, new = tmp_path / 'run', tmp_path / 'new'
  assert launch.main(['launch', f'--config={file}', f'--workdir={run}']) == 0
  summary = json.loads((run / files.SUMMARY).read_text())
  assert 0 < summary['active_weights'] < summary['weights']
  assert summary['parameters'] == 1185  # without its variances
  assert set(summary['log_alpha']) == {'fc1', 'fc2', 'fc3'}

  registered.forget()
  deployed = ['deploy', f'--run={run}', f'--workdir={new}', '--threshold=-1']
  capsys.readouterr()
  assert deploy.main(deployed) == 2
  assert capsys.readouterr().err == (
    f"deploy: run={run}: there is no posterior 'backprop': parts=FILE must name the file that "
    'registers it\n'
  )
  assert not new.exists()
  assert deploy.main([*deployed, f'--parts={file}']) == 0
  sparser = json.loads((new / files.SUMMARY).read_text())
  assert 0 < sparser['active_weights'] < summary['active_weights']
  assert sparser['deployed_from'] == summary['hash']

  registered.forget()
  assert sparsejax.load(new).summary == sparser  # what is deployed has no posteriors any more
  other = tmp_path / 'other.py'
  other.write_text(CONFIG.replace('threshold=0.0', 'threshold=-0.5'))
  assert deploy.main([*deployed, f'--parts={other}']) == 2
  assert f'its hash is {summary["hash"]}, but its settings' in capsys.readouterr().err


def test_its_settings_are_fields_of_a_config(file):
  settings = commandline.resolve([f'--config={file}'])
  assert settings['backprop'] == {
    **{'threshold': 0.0, 'thresholds': {}, 'kernel_std': None, 'log_variance': -8.0},
    'temperature': 0.5,
  }
  with pytest.raises(ValueError, match=r"backprop.temperature='x' must be a finite number"):
    commandline.resolve([f'--config={file}', '--config.backprop.temperature=x'])
  with pytest.raises(ValueError, match=r'layers.* must be one of deterministic, .*backprop'):
    commandline.resolve([f'--config={file}', '--config.layers=backdrop'])


def test_a_setting_whose_default_is_an_integer_is_one(file):
  counted = CONFIG.replace("settings={'temperature': 1.0}", "settings={'draws': -2, **TEMPERATURE}")
  counted = counted.replace('MINE =', "TEMPERATURE = {'temperature': 1.0}\nMINE =")
  file.write_text(counted.replace('*, temperature)', '*, temperature, draws)'))
  given = f'--config={file}'
  for flags, draws in (([given], -2), ([given, '--config.backprop.draws=3'], 3)):
    found = commandline.resolve(flags)['backprop']['draws']
    assert (found, type(found)) == (draws, int)
  with pytest.raises(ValueError, match=r'backprop\.draws=2\.5 must be an integer$'):
    commandline.resolve([given, '--config.backprop.draws=2.5'])


SPARSE_VD = posterior.FAMILIES['sparse_vd']
GROUPED = posterior.FAMILIES['group_horseshoe']


def changed(**changes):
  """A family that can be registered, but for the changes."""
  leaves = {'noise_log_variance': Leaf('weight')}
  own = {
    'kl': lambda leaves: jnp.sum(leaves['noise_log_variance']),
    'log_alpha': lambda leaves: leaves['noise_log_variance'],
    'moments': lambda leaves: {
      name: Moments(leaves[name], leaves[name]) for name in ('kernel', 'bias') if name in leaves
    },
    'draw': lambda leaves, x, linear, noise: linear(x, leaves['kernel']),
  }
  family = posterior.Family(leaves=leaves, threshold=0.0, **own)
  return dataclasses.replace(family, **changes)


@pytest.mark.parametrize(
  ('name', 'family', 'message'),
  [
    ('mine', changed, 'it is of type function: it must be a posterior.Family'),
    (
      'mine',
      changed(leaves={'noise': Leaf('weight')}),
      "its leaf 'noise' must have a name",
    ),
    (
      'mine',
      changed(leaves={'s_mean': 'weight'}),
      "'s_mean' must be a posterior.Leaf, per",
    ),
    ('mine', changed(leaves={'s_log_variance': Leaf('unit')}), 'per one of weight, bias, '),
    ('mine', changed(leaves={'s_mean': Leaf('weight')}), 'must have a leaf whose name ends in'),
    ('mine', dataclasses.replace(SPARSE_VD), "the same names as those of 'sparse_vd'"),
    ('mine', changed(kl=lambda leaves: leaves['kernel']), r'its kl must return \(\), not \(2, 3\)'),
    ('mine', changed(kl=lambda leaves: leaves['nope']), "its kl raises KeyError: 'nope'"),
    (
      'mine',
      changed(log_alpha=lambda leaves: leaves['kernel'][0]),
      r'its log_alpha must return \(2, 3\), not \(3,\), for leaves of',
    ),
    ('mine', changed(moments=lambda leaves: {}), "its moments must return {'kernel': Moments"),
    (
      'mine',
      changed(draw=lambda leaves, x, linear, noise: x),
      r'its draw must return \(4, 3\), not \(4, 2\)',
    ),
    ('mine', changed(settings={'depth': 2}), 'its draw raises TypeError: .*depth'),
    (
      'mine',
      changed(threshold=9.0, bound=8.0),
      'its threshold is 9.0: it must be a number',
    ),
    ('mine', changed(log_variance=100.0), 'its log_variance is 100.0: it must be a number of -80'),
    ('prune', changed(), 'a config has something else with that name'),
    ('deterministic', changed(), 'a config has something else with that name'),
    ('sparse_vd', changed(), "the posterior 'sparse_vd' exists already"),
  ],
)
def test_what_is_no_family_is_refused_in_one_line(name, family, message):
  before = dict(posterior.FAMILIES)
  with pytest.raises(ValueError, match=f'^register: .*{message}') as error:
    sparsejax.register('posterior', name, family)
  assert '\n' not in str(error.value)
  assert before == posterior.FAMILIES


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'threshold': 1.0}, "its setting 'threshold' must have another name"),
    ({'training_mask': True}, "its setting 'training_mask' must have another name"),
    ({'family': 'a'}, "its setting 'family' must have another name"),
    ({'depth': None}, "its setting 'depth' is None: it must be a number, a string or a flag"),
  ],
)
def test_settings_that_no_config_can_have_are_refused(settings, message):
  def draw(leaves, x, linear, noise, **settings):
    return linear(x, leaves['kernel'])

  with pytest.raises(ValueError, match=message):
    sparsejax.register('posterior', 'mine', changed(settings=settings, draw=draw))


def test_a_family_of_ones_own_may_have_groups():
  leaves = {f'my_{name}': leaf for name, leaf in GROUPED.leaves.items()}

  def with_their_names(function):
    def renamed(leaves, *arguments):
      return function({name.removeprefix('my_'): leaf for name, leaf in leaves.items()}, *arguments)

    return renamed

  names = ('kl', 'log_alpha', 'moments', 'draw')
  functions = {name: with_their_names(getattr(GROUPED, name)) for name in names}
  sparsejax.register('posterior', 'mine', dataclasses.replace(GROUPED, leaves=leaves, **functions))
