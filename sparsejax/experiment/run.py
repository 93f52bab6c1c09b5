"""One run, from a config to its summary: build, claim the directory, restore, train, report."""

import contextlib
import functools
import pathlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import jax

from sparsejax.experiment import init_from
from sparsejax.experiment.config import identity
from sparsejax.experiment.machine import files, hosts, parallel
from sparsejax.experiment.outcome.finish import finish
from sparsejax.experiment.rundir import checkpoint, runs
from sparsejax.experiment.rundir.state import RunState, initial
from sparsejax.experiment.show import display
from sparsejax.experiment.terminal.errors import (
  NonFiniteLossError,
  PausedError,
  TerminatedError,
  UsageError,
)
from sparsejax.experiment.terminal.say import say
from sparsejax.experiment.training import posterior, setup
from sparsejax.experiment.training.train import Trainer
from sparsejax.experiment.training.writers import Writers


def run(
  config: Mapping[str, Any],
  defaults: Mapping[str, Any],
  *,
  version: int,
  workdir: pathlib.Path | None = None,
  restart: bool = False,
  watch: Callable[[Mapping[str, Any]], bool] | None = None,
) -> dict[str, Any]:
  """Runs an experiment, or resumes it where it stopped; returns its summary.

  Args:
    config: the resolved settings.
    defaults: the defaults of base.py for the same chain and events.
    version: the version of the defaults.
    workdir: the run directory; by default results/runs/NAME-HASH8/seedK.
    restart: whether to begin at step 0; whatever is there is moved to a folder of its own.
    watch: called with the line of metrics of every evaluation; if it returns True, the run is saved
      and stops. The next call resumes it there.

  Raises:
    PausedError: `watch` stopped the run.
    UsageError: if the config or the directory cannot be used; nothing in the directory is lost.
  """
  try:
    experiment = setup.build(config)
  except ValueError as error:
    raise UsageError(str(error)) from error
  name, seed = config['name'], config['seed']
  experiment_hash = identity.hash8(config, defaults, version, experiment.digests)
  path = workdir or pathlib.Path('results', 'runs', f'{name}-{experiment_hash}', f'seed{seed}')
  if not (path / files.CONFIG).exists():  # a new run: refused before a folder is made
    _check_start(experiment)
  # With one process, as nearly always, each function of `hosts` only calls its argument, so that
  # `directory` is claim().
  hosts.check_same(f'{experiment_hash}, seed {seed}')
  claim = functools.partial(runs.RunDirectory, path, config, experiment_hash)
  with hosts.open_on_first(claim) as directory:  # locked; its config.json is written or compared
    if restart:
      hosts.broadcast_result(lambda: directory.set_aside())
    finished = hosts.broadcast_result(lambda: directory.summary)
    if finished is not None:
      say(f'{path} already holds this run, finished; nothing is trained.')
      display.final_table(finished)
      return finished
    display.settings_table(config, defaults)
    say(f'run directory: {path}')
    try:
      with files.naming_full_disk(path):
        if directory is not None:
          directory.note_start()
          (path / files.TRACEBACK).unlink(missing_ok=True)
        state, notes = _begin(experiment, directory)
        return _train(experiment, directory, experiment_hash, state, notes, watch)
    except (PausedError, TerminatedError, UsageError):
      raise
    except Exception:
      with contextlib.suppress(OSError):  # the disk may be the fault
        if directory is not None:
          (path / files.TRACEBACK).write_text(traceback.format_exc())
      raise


def _check_start(experiment: setup.Experiment) -> None:
  """Refuses a start that training cannot begin from, before anything is written."""
  if source := experiment.config['init_from']:
    shapes = jax.eval_shape(experiment.init_variables)
    like = {'params': shapes['params'], 'batch_stats': shapes.get('batch_stats', {})}
    init_from.read(source, like, experiment)
    return
  thresholds = experiment.deployment.thresholds
  if thresholds is None:
    return
  try:
    params = experiment.init_variables()['params']
    posterior.check_start(params, thresholds)
  except ValueError as error:
    raise UsageError(f'{experiment.config["layers"]}: {error}') from error


def _begin(experiment: setup.Experiment, directory: runs.RunDirectory | None):
  """Returns the state to train from, and the notes that go with it.

  The notes are not arrays: the seconds trained so far and the figures of each phase.
  """
  config = experiment.config
  fresh = initial(experiment.init_variables(), experiment.tx, config['seed'])
  fresh = parallel.replicate(fresh)
  return hosts.broadcast_state(lambda: _state(experiment, directory, fresh), fresh)


def _state(
  experiment: setup.Experiment, directory, fresh: RunState
) -> tuple[RunState, dict[str, Any]]:
  """The state and its notes: restored, started from another run, or new."""
  config = experiment.config
  try:
    restored = checkpoint.restore_newest(directory.checkpoints, directory.owner, fresh)
  except ValueError as error:
    raise UsageError(f'{error}; give another --workdir, or begin again with --restart') from error
  if restored is not None:
    say(f'going on from step {restored.step}')
    return restored.state, restored.notes
  if (step := directory.saved_step) is not None:
    saved = f'step {step}' if step >= 0 else f'a step that {files.PROGRESS} does not name'
    raise UsageError(
      f'workdir={directory.path}: {saved} was saved here, but no usable checkpoint is left; '
      'put one back, or begin again with --restart'
    )
  notes = {'seconds': 0.0, 'phases': {}}
  if config['init_from']:
    return init_from.start(fresh, config['init_from'], experiment), notes
  return fresh, notes


def _train(
  experiment: setup.Experiment,
  directory: runs.RunDirectory | None,
  experiment_hash: str,
  state: RunState,
  notes: dict[str, Any],
  watch: Callable[[Mapping[str, Any]], bool] | None,
) -> dict[str, Any]:
  """Trains from a state to the end and returns the summary; `notes` go with the state."""
  total, step = experiment.clock.total_steps, int(state.train.step)
  with Writers(directory, experiment, step) as writers, display.Progress(total) as progress:
    trainer = Trainer(experiment, state, notes, directory, progress, writers, watch)
    best = trainer.run().best
  if best.step < 0:  # no network was chosen
    raise NonFiniteLossError('no evaluation at the final density had a finite validation loss')
  seconds = trainer.seconds
  phases = trainer.notes['phases']
  del trainer  # this also frees the data set on the devices, which measuring puts there itself
  return finish(
    experiment,
    best,
    experiment.deliver(best),
    directory,
    writers.lines,
    experiment_hash=experiment_hash,
    seconds=seconds,
    phases=phases,
  )
