"""Training that starts from the network of a finished run: the setting `init_from`."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sparsejax.experiment.machine import files, parallel
from sparsejax.experiment.rundir import checkpoint
from sparsejax.experiment.rundir.state import RunState, init_optimizer
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import say
from sparsejax.experiment.training import setup
from sparsejax.sparsity.counting import measure
from sparsejax.sparsity.leaves import tree


def start(state: RunState, source: str, experiment: setup.Experiment) -> RunState:
  """Returns the state with the best network of a finished run in place of the initial one."""
  trained = {'params': state.train.params, 'batch_stats': state.train.batch_stats}
  found, has_others = read(source, trained, experiment)
  summary = files.read_json(pathlib.Path(source) / files.SUMMARY)
  owner = checkpoint.Owner.named_in(summary)
  say(f'init_from={source}: the network of {summary["name"]}, {owner}')
  if has_others:
    say(f'{source} has other posteriors: only their means are taken')
  warning = '' if experiment.deployment.is_variational else _zeros_warning(found, experiment)
  if warning:
    say(f'init_from={source}: {warning}')
  opt_state = parallel.replicate(init_optimizer(experiment.tx, found['params']))
  best = jax.tree.map(jnp.copy, found)
  train = state.train._replace(**found, opt_state=opt_state)
  return RunState(train, state.best._replace(**best))


def _zeros_warning(network: Mapping[str, Any], experiment: setup.Experiment) -> str:
  """Returns a warning that a pruned network's zeros will train again, or '' if they will not."""
  counts = measure.report(network['params'])
  chain = experiment.config['chain']
  active, weights = counts['active_weights'], counts['weights']
  if active == weights or 'hold' in chain:
    return ''
  what = f'{active:,} of its {weights:,} weights are active, and the others will train again'
  if 'straight_through' in chain:
    return f"{what}, as 'straight_through' has it"
  if experiment.agenda.first_cut == 0:
    return ''
  if experiment.agenda.grows:
    return f'{what}, as prune.update_rule has it'
  names = ','.join(f"'{name}'" for name in (*chain, 'hold'))
  return f'{what}; to hold them at zero: "--config.chain=({names})"'


def read(source: str, like: Any, experiment: setup.Experiment) -> tuple[Any, bool]:
  """Returns a run's posterior, if it has this run's leaves, else its deployed network.

  The second result is whether it has a posterior with other leaves.

  Raises:
    UsageError: neither has the shapes of this run's network.
  """
  try:
    return _read_network(source, like, experiment)
  except ValueError as error:
    reason = str(error).splitlines()[0]
    raise UsageError(f'init_from={source}: its network has another shape: {reason}') from error


def _read_network(source: str, like: Any, experiment: setup.Experiment) -> tuple[Any, bool]:
  folder = checkpoint.best_folder(source)
  has_others = False
  whole = folder.with_name(checkpoint.POSTERIOR)
  if experiment.deployment.is_variational and (whole / checkpoint.MANIFEST).exists():
    try:
      return checkpoint.read(whole, like)[0], False
    except checkpoint.DamagedError:
      raise
    except ValueError:  # the posterior is of another family
      has_others = True
  deployed = jax.eval_shape(experiment.deployment, like['params'], like['batch_stats'])
  found, _ = checkpoint.read(folder, like | {'params': deployed})
  # If this run has posteriors, these are their means; variances and scales start as usual.
  named = tree.named_leaves(like['params']) | tree.named_leaves(found['params'])
  params = jax.tree.unflatten(jax.tree.structure(like['params']), list(named.values()))
  return found | {'params': params}, has_others
