"""Posteriors in a run: the chain's order, what is refused, and a network that is deployed."""

import json

import commands
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from sparsejax.experiment.chain import links, optimizer
from sparsejax.experiment.chain.durations import Clock
from sparsejax.experiment.config import base
from sparsejax.experiment.rundir import checkpoint
from sparsejax.experiment.show import phases
from sparsejax.experiment.training import agenda, posterior, setup
from sparsejax.sparsity.leaves import tree

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

CLOCK = Clock(examples=100, batch_size=10, epochs=4)
CHAIN = ('add_kl_gradients', 'scale_by_adam', 'scale_by_learning_rate')


def config_of(chain=CHAIN, layers='sparse_vd', **changes):
  return base.get_config(chain, layers=layers).to_dict() | changes


def test_posteriors_without_their_kl_are_refused():
  with pytest.raises(ValueError, match='without the KL nothing makes the posteriors noisy'):
    posterior.check(config_of(base.SGD))


def test_a_kl_without_posteriors_is_refused():
  with pytest.raises(ValueError, match="has no posteriors to act on with layers='deterministic'"):
    posterior.check(config_of(layers='deterministic'))


@pytest.mark.parametrize(
  ('chain', 'message'),
  [
    (('scale_by_adam', 'add_kl_gradients', 'scale_by_learning_rate'), "after 'scale_by_adam'"),
    (
      ('clip', 'add_kl_gradients', 'scale_by_learning_rate'),
      "after 'clip' the gradient no longer has",
    ),
    (('sgd', 'add_kl_gradients'), "'add_kl_gradients' must not stand after 'sgd'"),
  ],
)
def test_the_kl_is_added_where_the_gradient_has_its_size(chain, message):
  with pytest.raises(ValueError, match=message):
    links.check_order(chain)


@pytest.mark.parametrize(
  ('block', 'message'),
  [
    ({'weight': -1.0}, 'add_kl_gradients.weight goes from -1.0 to -1.0: it must be 0 or more'),
    ({'wieght': 1.0}, "did you mean 'add_kl_gradients.weight'"),
    (
      {'weight': dict(schedule='linear', initial=0.0, final=1.0, begin_epochs=1, end_epochs=5)},
      r'its warm-up ends at step 50 \(epoch .*\), but the run has 40 steps; give an',
    ),
  ],
)
def test_weights_that_make_no_sense_are_refused(block, message):
  blocks = {'add_kl_gradients': block, 'scale_by_learning_rate': {'learning_rate': 0.1}}
  with pytest.raises(ValueError, match=message):
    optimizer.build(CHAIN, blocks, CLOCK)


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('sparse_vd', {'treshold': 1.0}, "did you mean 'sparse_vd.threshold'"),
    ('sparse_vd', {'threshold': float('nan')}, 'sparse_vd.threshold=nan must be a number above -8'),
    ('sparse_vd', {'threshold': 9.0}, 'sparse_vd.threshold=9.0 must be a number above -8'),
    ('sparse_vd', {'thresholds': {'fc1': 1.0}}, 'set sparse_vd.training_mask=False'),
    (
      'group_horseshoe',
      {'threshold': 'x'},
      "group_horseshoe.threshold='x' must be a finite",
    ),
    ('sparse_vd', {'kernel_std': -1.0}, 'sparse_vd.kernel_std=-1.0 must be a number of 0'),
    ('sparse_vd', {'kernel_std': 'x'}, "sparse_vd.kernel_std='x' must be a number of 0"),
    ('sparse_vd', {'log_variance': None}, 'sparse_vd.log_variance=None must be a number of -80'),
    (
      'group_horseshoe',
      {'conv_groups': 'both'},
      "horseshoe.conv_groups='both' must be one of",
    ),
  ],
)
def test_settings_of_layers_are_checked(name, changes, message):
  config = config_of(layers=name)
  config[name] = config[name] | changes
  with pytest.raises(ValueError, match=message):
    posterior.build_layers(config)


@pytest.mark.parametrize(
  ('chain', 'block', 'message'),
  [
    (('add_decayed_weights', *CHAIN), {}, "'add_decayed_weights' would decay the posteriors' log"),
    (
      (*CHAIN, 'prune'),
      {'prune': {'parameters': 'all'}},
      "prune.parameters='all' includes the post",
    ),
    ((*CHAIN, 'proximal_l1'), {'proximal_l1': {'parameters': 'all'}}, "proximal_l1.parameters='a"),
  ],
)
def test_links_that_would_move_or_mask_variances_are_refused(chain, block, message):
  with pytest.raises(ValueError, match=message):
    posterior.check(config_of(chain, **block))


def test_the_share_at_bounds_is_of_what_is_bounded():
  layer = {
    'kernel': jnp.ones((1, 2)),
    'kernel_log_variance': jnp.log(jnp.array([[0.04, 0.01]])),
    'bias': jnp.ones(2),
    'bias_log_variance': jnp.log(jnp.array([0.04, 0.04])),
    'scale_mean': jnp.ones((1, 1)),
    'scale_log_variance': jnp.zeros((1, 1)),
  }
  params = {'fc1': layer, 'fc2': layer | {'kernel_log_variance': jnp.zeros((1, 2))}}
  found = posterior.figures(params, 0.5, {'maximum': 0.04, 'where': '^fc1/'})
  assert float(found['at_bounds']) == 0.75
  assert float(found['kl_term']) == pytest.approx(0.5 * float(found['kl']))
  assert 'at_bounds' not in posterior.figures(params, 0.5, None)
  clipped = {'kernel': jnp.ones((1, 2)), 'kernel_log_variance': jnp.array([[-9.0, 1.0]])}
  assert float(posterior.figures({'fc': clipped}, 0.5, None)['at_bounds']) == 0.5


def test_the_network_of_the_last_step_is_the_result():
  plan = agenda.agenda(config_of(), CLOCK, None, only_the_last=True)
  assert [step for step in range(41) if plan.is_final(step)] == [40]


RUN = (
  '--config=configs/quickstart.py',
  "--config.chain=('add_kl_gradients', 'scale_by_adam', 'scale_by_learning_rate')",
  '--config.scale_by_learning_rate.learning_rate=0.003',
  '--config.epochs=15.0',
)


def test_a_run_deploys_a_sparse_network_and_another_starts_from_it(tmp_path):
  workdir = tmp_path / 'variational'
  arguments = (*RUN, '--config.layers=sparse_vd', '--config.add_kl_gradients.weight=0.1')
  status, _, stderr = commands.launch(*arguments, f'--workdir={workdir}')
  assert status == 0, stderr
  summary, lines = commands.summary(workdir), commands.metrics(workdir)
  assert summary['parameters'] == 50610  # posterior variances are not counted
  assert 0 < summary['active_weights'] < 0.2 * summary['weights']
  assert lines[-1]['active_parameters'] == summary['active_parameters']
  assert summary['test_accuracy'] > 0.9
  assert summary['compression_with_bits'] > 2 * summary['compression']
  assert summary['test_accuracy_with_bits'] == pytest.approx(summary['test_accuracy'], abs=0.02)
  assert len(summary['architecture']) == len(summary['bits']) == 3
  assert sum(summary['log_alpha']['fc3']['counts']) == 1000
  assert set(summary['phases']) == {'deployed'}
  assert sum(lines[-1][f'kl/{layer}'] for layer in ('fc1', 'fc2', 'fc3')) == pytest.approx(
    lines[-1]['kl'], rel=1e-5
  )
  after = tmp_path / 'after'
  arguments = ('--config=configs/quickstart.py', f'--config.init_from={workdir}')
  arguments += (
    '--config.epochs=2.0',
    '--config.prune.begin_epochs=0.0',
    '--config.prune.density=0.2',
  )
  status, _, stderr = commands.launch(*arguments, f'--workdir={after}')
  assert status == 0, stderr
  pruned = commands.summary(after)
  assert phases.no_cut_reason(pruned) == phases.SHRUNK  # the posterior had left fewer weights
  dense = pruned['phases']['dense']
  assert dense['active_weights'] == summary['active_weights']
  assert dense['validation_loss'] == pytest.approx(summary['validation_loss'], rel=1e-5)


def test_a_posterior_goes_on_from_posteriors_or_from_means(tmp_path):
  """With a learning rate of 0 the end of a run is the start of the next."""

  def end_of(name, family, source=None):
    arguments = [*RUN, '--config.epochs=2.0', f'--config.layers={family}']
    if source:
      arguments.append(f'--config.init_from={tmp_path / source}')
      arguments.append('--config.scale_by_learning_rate.learning_rate=0.0')
    status, _, stderr = commands.launch(*arguments, f'--workdir={tmp_path / name}')
    assert status == 0, stderr
    line = commands.metrics(tmp_path / name)[-1]
    return [line['kl'], line['validation_loss']]

  first = end_of('first', 'group_normal_jeffreys')
  assert end_of('again', 'group_normal_jeffreys', 'first') == pytest.approx(first, rel=1e-5)
  kl, loss = end_of('means', 'sparse_vd', 'first')
  assert loss == pytest.approx(first[1], rel=1e-2)  # some means are small beside the new noise
  assert kl != pytest.approx(first[0], rel=0.1)  # the variances and their prior are new


def test_a_deployed_network_has_batch_norm_averages_of_its_own(tmp_path):
  """They are the moments over all of the training images, which one batch holds here."""
  data, workdir = commands.write_npz(tmp_path / 'data.npz'), tmp_path / 'run'
  arguments = (
    '--config=configs/allconv_bc.py:0.1',
    '--config.model.width=4',
    f'--config.data.name={data}',
    '--config.data.validation=32',
    '--config.data.crop_padding=0',
    '--config.batch_size=64',
    '--config.epochs=6.0',
    '--config.add_kl_gradients.weight.end_epochs=2.0',
    '--config.scale_by_learning_rate.learning_rate.begin_epochs=3.0',
  )
  status, _, stderr = commands.launch(*arguments, f'--workdir={workdir}')
  assert status == 0, stderr
  experiment = setup.build(json.loads((workdir / 'config.json').read_text()))
  with ocp.StandardCheckpointer() as checkpointer:
    folder = workdir / 'checkpoints' / checkpoint.BEST / checkpoint.ARRAYS
    best = checkpointer.restore(folder.absolute())
  images = experiment.preprocessing.evaluate(experiment.dataset.train.images)
  zeros = jax.tree.map(jnp.zeros_like, best['batch_stats'])
  _, passed = experiment.deployment.model.apply(
    {'params': best['params'], 'batch_stats': zeros}, images, train=True, mutable=['batch_stats']
  )
  for path, average in tree.named_leaves(best['batch_stats']).items():
    moment = tree.named_leaves(passed['batch_stats'])[path] / 0.1  # a pass moves by a tenth
    np.testing.assert_allclose(average, moment, rtol=1e-3, atol=1e-4, err_msg=path)
  summary = commands.summary(workdir)
  assert len(summary['architecture']) == 10
  last = commands.metrics(workdir)[-1]
  assert last['validation_loss'] == pytest.approx(summary['validation_loss'], rel=1e-6)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('--config=configs/quickstart.py',), "; put 'add_kl_gradients' in config.chain"),
    (
      (*RUN, '--config.group_horseshoe.threshold=-9.0'),
      "group_horseshoe: threshold of 'fc1', -9.0: before training its log alpha is 0.00 or more",
    ),
    (
      (*RUN, '--config.group_horseshoe.log_variance=6.0'),
      "group_horseshoe: log_variance: the KL of 'fc1' is inf at the start; give a lower",
    ),
    (
      (*RUN, '--config.add_kl_gradients.weight=x'),
      "add_kl_gradients.weight='x' must be a number of 0 or more, or a schedule's block",
    ),
  ],
)
def test_what_can_not_be_ends_the_command_in_one_line(arguments, message, tmp_path):
  arguments = (*arguments, '--config.layers=group_horseshoe')
  status, _, stderr = commands.launch(*arguments, f'--workdir={tmp_path / "run"}')
  assert status == 2
  assert len(stderr.strip().splitlines()) == 1
  assert message in stderr
  assert not (tmp_path / 'run').exists()


def test_a_bound_on_nothing_says_what_there_is():
  config = config_of(('bound_variances',), bound_variances={'where': '^fc9/'})
  params = {'fc1': {'kernel': jnp.ones((2, 2)), 'kernel_log_variance': jnp.ones((2, 2))}}
  message = r"bound_variances.where='\^fc9/' must find one of the variances fc1/kernel_log_variance"
  with pytest.raises(ValueError, match=message):
    posterior.check_bound(config, params)
