"""A run that is older than a setting gets the default, and is the run that it was by its hash."""

import json
import pathlib

import pytest

from sparsejax.experiment.config import base
from sparsejax.experiment.config.identity import flatten, hash8
from sparsejax.experiment.outcome import recorded

HERE = pathlib.Path('a/run')
SETTINGS = {
  'of every run': ((), (), 'deterministic', ['model.widths', 'data.cutout', 'epochs', 'log']),
  'of a link': (('prune', 'sgd'), (), 'deterministic', ['prune.in_multiples', 'prune.end_epochs']),
  'of an event': (('sgd',), ('lobs',), 'deterministic', ['lobs.method', 'lobs']),
  'of layers': (('add_kl_gradients', 'sgd'), (), 'sparse_vd', ['sparse_vd.training_mask']),
}


def written(chain=('sgd',), events=(), layers='deterministic', **changes):
  """The settings as config.json has them."""
  return json.loads(json.dumps(base.get_config(chain, events, layers).to_dict() | changes))


def without(config, name):
  block, _, key = name.rpartition('.')
  del (config[block] if block else config)[key]
  return config


def test_nothing_is_added_to_a_run_of_today():
  for chain, events, layers, _ in SETTINGS.values():
    found = recorded.complete(HERE, written(chain or ('sgd',), events, layers))
    assert found.newer == ()
    assert found.settings == base.get_config(chain or ('sgd',), events, layers).to_dict()


@pytest.mark.parametrize(('chain', 'events', 'layers', 'names'), SETTINGS.values(), ids=SETTINGS)
def test_what_a_run_lacks_gets_its_default(chain, events, layers, names):
  chain = chain or ('sgd',)
  whole = base.get_config(chain, events, layers).to_dict()
  for name in names:
    found = recorded.complete(HERE, without(written(chain, events, layers), name))
    assert found.settings == whole
    assert {one for one in found.newer if one == name or one.startswith(f'{name}.')}


def test_a_setting_at_its_default_does_not_change_the_hash_of_a_run_that_is_older():
  settings = base.get_config(('prune', 'sgd')).to_dict() | {'epochs': 3.0}
  told = hash8(settings, base.defaults(settings), base.VERSION)
  config = written(('prune', 'sgd'), epochs=3.0)
  for name in ('model.widths', 'prune.in_multiples', 'evaluation.choose_by'):
    config = without(config, name)
  found = recorded.complete(HERE, config)
  assert recorded.hash8(found, base.defaults(found.settings), base.VERSION) == told
  del config['epochs']  # which was no default
  found = recorded.complete(HERE, config)
  assert recorded.hash8(found, base.defaults(found.settings), base.VERSION) != told


def test_the_hash_of_older_layers_leaves_out_what_they_did_not_have():
  """The defaults have no block of layers, so that all of one enters the hash."""
  config = without(written(('add_kl_gradients', 'sgd'), (), 'sparse_vd'), 'sparse_vd.threshold')
  defaults = base.defaults(config)
  found = recorded.complete(HERE, config)
  assert 'threshold' in found.settings['sparse_vd']
  assert recorded.hash8(found, defaults, 3) == hash8(config, defaults, 3)


def test_a_duration_in_another_unit_is_not_lacking():
  config = written(('prune', 'sgd'))
  config['prune']['begin_steps'] = config['prune'].pop('begin_epochs')
  found = recorded.complete(HERE, config)
  assert found.newer == ()
  assert 'begin_epochs' not in found.settings['prune']


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'batchsize': 3}, "unknown field 'batchsize': did you mean 'batch_size'?"),
    ({'batch_size': 0}, 'batch_size=0 must be '),
    ({'model': 3}, 'model=3 must be a block of settings'),
  ],
)
def test_what_no_setting_is_or_can_have_is_refused(change, message):
  with pytest.raises(ValueError, match=r'run=a/run: its config\.json: ') as refused:
    recorded.complete(HERE, written(**change))
  assert message in str(refused.value)


def test_a_former_name_is_told_with_todays():
  config = written(('prune', 'sgd'))
  config['prune']['target'] = config['prune'].pop('density')
  with pytest.raises(ValueError, match=r"'prune\.target': it is called 'prune\.density' now"):
    recorded.complete(HERE, config)


def test_a_run_of_other_defaults_is_refused_as_one_of_another_version():
  recorded.check_hash(HERE, 'a', 'a', ['prune.block'])
  why = r"another version, whose config\.json has no 'prune\.block' and 1 more: its hash is a"
  with pytest.raises(ValueError, match=why):
    recorded.check_hash(HERE, 'a', 'b', ['prune.block', 'epochs'])
  with pytest.raises(ValueError, match='its hash is a, but its settings, data and start now'):
    recorded.check_hash(HERE, 'a', 'b')


def test_every_default_is_one_that_the_check_takes_and_no_name_is_added_twice():
  found = recorded.complete(HERE, {'chain': ['sgd'], 'events': [], 'layers': 'deterministic'})
  assert found.settings == base.get_config(('sgd',)).to_dict()
  assert len(set(found.newer)) == len(found.newer)
  assert set(flatten(found.settings)) - {'chain', 'events', 'layers'} <= set(found.newer)
