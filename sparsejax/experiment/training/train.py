"""The one training loop: segments of steps, and what the agenda lists between them.

Its `RunState` has the network in training with its optimizer's state and running metrics (`train`),
and the network that was best on the validation split so far (`best`).
"""

import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import optax

from sparsejax import models
from sparsejax.experiment.chain import pruning_links, rates
from sparsejax.experiment.machine import hosts, parallel
from sparsejax.experiment.rundir import checkpoint, runs
from sparsejax.experiment.rundir.metrics import counted, counts
from sparsejax.experiment.rundir.state import RunState, better, empty_window
from sparsejax.experiment.show import display
from sparsejax.experiment.step import augment, events, steps
from sparsejax.experiment.terminal.errors import NonFiniteLossError, PausedError, TerminatedError
from sparsejax.experiment.terminal.say import say
from sparsejax.experiment.training import posterior
from sparsejax.experiment.training.setup import Experiment
from sparsejax.experiment.training.writers import Writers
from sparsejax.internal import signals
from sparsejax.sparsity.counting import measure
from sparsejax.transforms.inner.masking import apply_masks
from sparsejax.transforms.pruning import PruneState
from sparsejax.transforms.straight_through import StraightThroughState

REMOVING = (PruneState, StraightThroughState)


class Trainer:
  """One run in progress: the state on the devices, and notes about it that are not arrays.

  Args:
    experiment: the built config.
    state: the state to begin from.
    notes: the seconds trained so far and the figures of each phase: `seconds` and `phases`.
    directory: the run directory; None in a process that does not write.
    progress: shows how far training is.
    writers: the destinations of the lines of metrics.
    watch: called with the line of metrics of every evaluation; the run stops if it returns True.
  """

  def __init__(
    self,
    experiment: Experiment,
    state: RunState,
    notes: dict[str, Any],
    directory: runs.RunDirectory | None,
    progress: display.Progress,
    writers: Writers,
    watch: Callable[[Mapping[str, Any]], bool] | None = None,
  ):
    self.experiment, self.state, self.notes = experiment, state, notes
    self.directory, self.progress, self.writers, self.watch = directory, progress, writers, watch
    config, clock = experiment.config, experiment.clock
    # The data on the devices.
    self.train_data = steps.put_on_devices(experiment.dataset.train)
    self.validation_data = steps.put_on_devices(experiment.dataset.validation)
    # Functions, each compiled by its first call.
    self.evaluate = steps.make_evaluation(
      experiment.deployment.model,
      experiment.preprocessing,
      batch_size=config['evaluation']['batch_size'],
    )
    self._run = _train_calls(experiment)
    self._order = parallel.map_replicas(
      lambda key, epoch: augment.epoch_permutation(key, epoch, clock.examples)
    )
    self._count = jax.jit(lambda network: counts(network, experiment.counted_above))
    self.is_variational = experiment.deployment.is_variational
    # Returns the parameters as they are, unless they are posteriors.
    self._deploy = experiment.deployment.jitted
    self._averages = experiment.batch_norm_averager(self.train_data)
    if self.is_variational:
      self._posterior = _posterior_figures(experiment)
    # The sizes of the network that lines are about.
    network = jax.eval_shape(experiment.deployment, state.train.params, state.train.batch_stats)
    self._parameters = sum(measure.sizes(network).values())
    self._applied = experiment.applied
    self._weights = measure.weights(network)
    # What is kept from one boundary to the next.
    self._pending: dict[str, Any] | None = None  # the last boundary's line, still on the devices
    self._evaluated: dict[str, Any] = {}  # the last line with an evaluation
    self._thin: set[str] = set()  # layers already reported to have hardly a weight left
    self._begun = time.monotonic() - notes.get('seconds', 0.0)  # as if training never stopped
    self._last_line = (int(state.train.step), time.monotonic())  # its step and time
    self._signal: int | None = None  # the number of a signal that asks to stop

  def run(self) -> RunState:
    """Trains to the end, or raises; returns the last state."""
    begin = int(self.state.train.step)
    if begin == 0:
      self._arrive(0)
    boundaries = [b for b in self.experiment.agenda.boundaries if b > begin]
    try:
      with signals.noted(self._note_signal):
        for end in boundaries:
          # The last cut is part of the update that follows it. That update is a segment by itself,
          # since the agenda evaluates one step later, so the copy is the network before the cut.
          cut_from = self._copy_network() if begin == self.experiment.agenda.last_cut else None
          self._segment(begin, end)
          if cut_from is not None:
            self._measure_cut(begin, *cut_from)
          self._arrive(end)
          self._heed_signal()
          begin = end
    except PausedError:
      # A signal may have come at the last moment; its sender must not wait while this process takes
      # other work.
      self._heed_signal()
      raise
    self._flush()
    return self.state

  @property
  def seconds(self) -> float:
    return time.monotonic() - self._begun

  def _segment(self, begin: int, end: int) -> None:
    """Trains the steps [begin, end), one epoch's order at a time."""
    per_epoch = self.experiment.clock.steps_per_epoch
    while begin < end:
      epoch = begin // per_epoch
      count = min(end, (epoch + 1) * per_epoch) - begin
      order = self._order(self.state.train.key, epoch)
      # One call makes all these steps, or only one of them; see `train_calls`.
      for train, done in self._run(self.state.train, self.train_data, order, count):
        self.state = self.state._replace(train=train)
        self._flush()
        begin += done
        self.progress.update(begin)
        # At the segment's end `run` heeds signals, after `_arrive`: a run resumed from a checkpoint
        # saved here would skip what the agenda lists for this step. Several processes agree on
        # signals only there, because asking all takes as long as a small step.
        if begin < end and hosts.count() == 1:
          self._heed_signal()

  def _arrive(self, step: int) -> None:
    """Does what the agenda lists for the network after `step` updates."""
    plan = self.experiment.agenda
    train = self.state.train
    line: dict[str, Any] = {}
    network = self._deploy(train.params, train.batch_stats) if step in plan.log else None
    if step in plan.log:
      line |= self._line(step, network)
      self.state = self.state._replace(train=train._replace(window=_fresh_window()))
    if step in plan.evaluate:
      loss, accuracy = self._validate(network, train.batch_stats)
      line |= {'validation_loss': loss, 'validation_accuracy': accuracy}
      if plan.is_final(step):
        by = self.experiment.config['evaluation']['choose_by']
        # The better of two evaluations, the first of equal ones; a loss that is NaN never wins.
        best = better(self.state.best, train, loss, accuracy, by)
        self.state = self.state._replace(best=best)
    self._pending = line or None  # `_flush` reads it, after the next call has begun
    if step == plan.first_cut:  # where the agenda evaluates, so that the line has these figures
      figures = line['validation_loss'], line['validation_accuracy']
      self.notes['phases']['dense'] = phase_figures(self.experiment, network, step, *figures)
    for name in plan.events.get(step, ()):
      self._apply_event(name)
    is_saved = step in plan.checkpoint and step > 0
    if is_saved:
      self._save()
    if self.watch is not None and step in plan.evaluate:
      self._flush()
      if self.watch(self._evaluated) and step < plan.total:
        self._pause(step, is_saved=is_saved)

  def _pause(self, step: int, *, is_saved: bool) -> NoReturn:
    """Ends this call of training, as `watch` asked; the next one resumes it."""
    if not is_saved:
      self._save()
    raise PausedError(f'stopped at step {step}; everything needed to resume is saved')

  def _validate(self, network, batch_stats):
    """Returns the loss and the accuracy of a deployed network on the validation split."""
    averages = self._averages(network, batch_stats)
    return self.evaluate(network, averages, self.validation_data)

  def _line(self, step: int, network: Any) -> dict[str, Any]:
    """The values of one line of metrics, some of them still on the device."""
    train, clock = self.state.train, self.experiment.clock
    line = {
      'step': step,
      'epoch': step / clock.steps_per_epoch,
      'examples': step * clock.batch_size,
      'window': train.window,
      'learning_rate': self.experiment.learning_rate(jnp.int32(max(step - 1, 0))),
      'counts': self._count(network),
    }
    return line | (self._posterior(train.params, train.step) if self.is_variational else {})

  def _flush(self) -> None:
    """Reads the pending line off the device and writes it, while the next call runs."""
    if self._pending is None:
      return
    values, self._pending = jax.device_get(self._pending), None
    window, found = values.pop('window'), values.pop('counts')
    order = ('step', 'epoch', 'examples')
    line = {name: _plain(values.pop(name)) for name in order}
    line |= {name: _plain(value) for name, value in values.items()}
    if window.steps:
      line['train_loss'] = float(window.loss / window.steps)
      line['train_accuracy'] = float(window.accuracy / window.steps)
    line |= counted(found, self._parameters, *self._applied)
    self._warn_about_thin_layers(int(line['step']), found.weights)
    line |= self._timings(int(line['step']))
    _refuse_non_finite(window)
    if 'validation_loss' in line:
      self._evaluated = line
    self.writers.append(line)
    self.progress.line(line)

  def _warn_about_thin_layers(self, step: int, weights: Mapping[str, int]) -> None:
    """Names the layers that a cut left with at most one weight, though an even share is more."""
    cut = self.experiment.agenda.first_cut
    if cut is None or step <= cut:
      return
    link = pruning_links.link_of(self.experiment.config['chain'])
    share = sum(map(int, weights.values())) / sum(self._weights.values())
    for layer, active in weights.items():
      if active <= 1 and share * self._weights[layer] >= 2 and layer not in self._thin:
        self._thin.add(layer)
        left = 'no weight' if active == 0 else 'one weight'
        say(
          f'step {step}: {layer} has {left} left; to keep more of a small layer give {link}.floor, '
          f'or {link}.allocation=erk or uniform'
        )

  def _timings(self, step: int) -> dict[str, float]:
    last_step, last_time = self._last_line
    now = time.monotonic()
    self._last_line = (step, now)
    examples = (step - last_step) * self.experiment.clock.batch_size
    rate = examples / max(now - last_time, 1e-9)
    return {'seconds': round(self.seconds, 3), 'examples_per_second': round(rate, 1)}

  @property
  def _removing(self) -> Any:
    """The state of the link that removes weights by a schedule; `hold` has masks too."""
    found = (optax.tree.get(self.state.train.opt_state, kind.__name__) for kind in REMOVING)
    return next(state for state in found if state is not None)

  def _copy_network(self):
    """The weights that the next masks are made from (dense ones if kept) and the averages."""
    train = self.state.train
    dense = getattr(self._removing, 'dense', train.params)
    return jax.tree.map(jnp.copy, (dense, train.batch_stats))

  def _measure_cut(self, step: int, params, batch_stats) -> None:
    """Notes the network just as it was cut at `step`: the old weights under the new masks.

    If it has posteriors, BatchNorm's averages are recomputed for it, as for every validation.
    """
    cut = apply_masks(params, self._removing.masks)
    cut = self._deploy(cut, batch_stats)
    figures = self._validate(cut, batch_stats)
    self.notes['phases']['pruned'] = phase_figures(self.experiment, cut, step, *figures)

  def _apply_event(self, name: str) -> None:
    settings = self.experiment.config[name]
    config, preprocessing = self.experiment.config, self.experiment.preprocessing
    context = events.Context(
      self.experiment.model, preprocessing, self.train_data, config['batch_size'], config['seed']
    )
    train = events.apply_event(name, self.state.train, settings, context)
    self.state = self.state._replace(train=parallel.replicate(train))

  def _save(self) -> None:
    self._flush()
    _refuse_non_finite(jax.device_get(self.state.train.window))
    self.writers.sync()
    self.notes['seconds'] = self.seconds
    keep = self.experiment.config['log']['keep_checkpoints']
    step = int(self.state.train.step)
    if (held := self.directory) is not None:
      state, notes, text = self.state, self.notes, self.writers.text
      checkpoint.save(held.checkpoints, held.owner, step, state, notes, keep=keep, metrics=text)

  def _note_signal(self, number: int) -> None:
    self._signal = number

  def _heed_signal(self) -> None:
    if hosts.any_process(self._signal is not None):
      self._save()
      number = signal.SIGTERM if self._signal is None else self._signal
      name = signal.Signals(number).name
      raise TerminatedError(f'{name}: saved at step {int(self.state.train.step)}', number)


def _train_calls(experiment: Experiment) -> parallel.Lowerable:
  """Returns run(state, data, order, count), which yields (state, steps made) after each call.

  A compiled call makes all steps or, for a network with convolutions on CPU, one step.
  """
  config, model = experiment.config, experiment.model
  step = steps.make_train_step(
    model,
    experiment.tx,
    experiment.preprocessing,
    batch_size=config['batch_size'],
    steps_per_epoch=experiment.clock.steps_per_epoch,
    squared_gradients=pruning_links.needs_squared_gradients(config),
    label_smoothing=config['loss']['label_smoothing'],
  )
  return parallel.train_calls(step, convolutional=models.has_convolutions(model))


def _posterior_figures(experiment: Experiment) -> Callable[[Any, jax.Array], dict[str, Any]]:
  """Returns (params, step) -> the figures of a line about posteriors."""
  config, clock = experiment.config, experiment.clock
  bound = config['bound_variances'] if 'bound_variances' in config['chain'] else None
  weight = rates.build(config['add_kl_gradients']['weight'], clock)
  return jax.jit(lambda params, step: posterior.figures(params, weight(step) / clock.labels, bound))


def phase_figures(experiment: Experiment, params, step: int, loss, accuracy) -> dict[str, Any]:
  """Returns the final table's figures of a network at one point of training."""
  counts = experiment.report(params)
  shown = ('active_parameters', 'active_weights', 'compression', 'theoretical_speedup')
  figures = {'step': step, 'validation_loss': float(loss), 'validation_accuracy': float(accuracy)}
  return figures | {name: counts[name] for name in shown}


def _fresh_window():
  return parallel.replicate(empty_window())


def _refuse_non_finite(window) -> None:
  if window.bad_step >= 0:
    raise NonFiniteLossError(
      f'the loss of step {int(window.bad_step)} is not finite; the checkpoints before it are kept'
    )


def _plain(value: Any) -> int | float:
  return value if isinstance(value, int) else float(value)
