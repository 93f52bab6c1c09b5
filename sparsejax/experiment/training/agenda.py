"""The steps at which a run is logged, evaluated, saved and cut, computed from its config."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sparsejax.experiment.chain.durations import Clock, convert_to_steps
from sparsejax.sparsity.parts.schedules import PruningSchedule


class Agenda(NamedTuple):
  """The steps at which training stops for something. "At step t" means after t updates.

  The order at a step is: begin the line of metrics, evaluate the network into it, let the events
  happen, save; then comes the next update. Every event is followed by a checkpoint. A line is
  written while the next compiled call runs or, if the step is saved, before the state is.
  """

  log: frozenset[int]
  evaluate: frozenset[int]
  checkpoint: frozenset[int]
  events: dict[int, tuple[str, ...]]
  cuts: tuple[int, ...]  # the steps of the mask updates, rising
  total: int
  only_the_last: bool = False  # whether only the network of the last step is a result
  grows: bool = False  # whether mask updates regrow weights, which stay zero for one update

  @property
  def first_cut(self) -> int | None:
    return self.cuts[0] if self.cuts else None

  @property
  def last_cut(self) -> int | None:
    """The last cut, or None if there is none.

    From the evaluation after it on, networks have the final density.
    """
    return self.cuts[-1] if self.cuts else None

  @property
  def boundaries(self) -> list[int]:
    """The ends of the segments in rising order, including 0 and the run's last step."""
    cuts = {*self.cuts[:1], *self.cuts[-1:]}  # those between are part of updates and need no stop
    stops = {0, self.total} | self.log | self.evaluate | self.checkpoint | set(self.events) | cuts
    return sorted(stops)

  def is_final(self, step: int) -> bool:
    """Returns whether the network of this step has the final density."""
    if self.only_the_last:
      return step == self.total
    return self.last_cut is None or step > self.last_cut + self.grows


def agenda(
  config: Mapping[str, Any],
  clock: Clock,
  schedule: PruningSchedule | None,
  *,
  only_the_last: bool = False,
  grows: bool = False,
) -> Agenda:
  """Returns the agenda of a run.

  A posterior loses weights until its last step, so with `only_the_last` only that network is a
  result: the best of all by validation would be one from before its noise had grown. If masks grow,
  the weights regrown last are zero for one update, in which the network has fewer weights than
  its density says.

  The network is evaluated just before the first mask update and one update after the last, so that
  a trace shows how far the accuracy falls at once.

  Raises:
    ValueError: a period is shorter than one step, an event comes after the end, or weights would
      regrow with the last update.
  """
  total = clock.total_steps
  if schedule is not None and grows and schedule.steps[-1] + 1 >= total:
    raise ValueError(
      f'prune: the last mask update is at step {schedule.steps[-1]} of {total}, and the weights '
      'that it regrows are zero until the update after it; it must be at step '
      f'{total - 2} at the latest'
    )
  events = _events(config, clock)
  # Phases "dense" and "pruned" of the summary are measured here.
  around = set() if schedule is None else {schedule.steps[0], schedule.steps[-1] + 1}
  evaluate = _every(config['evaluation'], 'evaluation.every', clock) | around | {total}
  return Agenda(
    log=_every(config['log'], 'log.every', clock) | evaluate,
    evaluate=frozenset(evaluate),
    # log.checkpoint_every_epochs, in steps
    checkpoint=_every(config['log'], 'log.checkpoint_every', clock) | {total} | set(events),
    events=events,
    cuts=() if schedule is None else schedule.steps,
    total=total,
    only_the_last=only_the_last,
    grows=grows,
  )


def _every(block, field, clock) -> frozenset[int]:
  name, _, setting = field.partition('.')
  period = convert_to_steps(block, clock, name)[setting]
  if period < 1:
    raise ValueError(f'{field} is {period} steps; it must be 1 or more')
  return frozenset(range(period, clock.total_steps + 1, period))


def _events(config, clock) -> dict[int, tuple[str, ...]]:
  events: dict[int, tuple[str, ...]] = {}
  for name in config['events']:
    at = convert_to_steps(config[name], clock, name)['at']
    if at >= clock.total_steps:
      raise ValueError(
        f'{name}.at is step {at}, but the run has {clock.total_steps} steps; it must be earlier, '
        'or nothing would see its effect'
      )
    events[at] = (*events.get(at, ()), name)
  return events
