"""The results of a finished training: the network that it delivers, its picture, its figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from sparsejax.experiment.machine import files
from sparsejax.experiment.outcome.summary import summarise
from sparsejax.experiment.rundir import checkpoint, digests, runs
from sparsejax.experiment.rundir.state import Best
from sparsejax.experiment.show import display
from sparsejax.experiment.training.setup import Experiment


def finish(
  experiment: Experiment,
  best: Best,
  network: Mapping[str, Any],
  directory: runs.RunDirectory | None,
  lines: Sequence[Mapping[str, Any]],
  **notes: Any,
) -> dict[str, Any]:
  """Measures the network that a run delivers, saves and shows the results; returns the summary.

  Args:
    experiment: the experiment that was run.
    best: the state that training chose.
    network: the variables that `deliver` made from it.
    directory: the run directory; None in a process that does not write.
    lines: the lines of metrics.jsonl.
    **notes: the other arguments of `summarise`.
  """
  summary = summarise(experiment, best, network, **notes)
  if directory is not None:
    _keep(experiment, directory, best, network, summary, lines)
  display.final_table(summary)
  return summary


def _keep(experiment, directory, best, network, summary, lines) -> None:
  """Writes the results of a finished run: networks, picture, and last the summary that ends it."""
  path, root, owner = directory.path, directory.checkpoints, directory.owner
  notes = {'step': int(best.step)}
  if experiment.deployment.is_variational:
    trained = {'params': best.params, 'batch_stats': best.batch_stats}
    checkpoint.write(root / checkpoint.POSTERIOR, owner, trained, notes)
  checkpoint.write(root / checkpoint.BEST, owner, network, notes)  # last, since readers look for it
  _draw(lines, path, summary, experiment.agenda)
  text = files.json_text(summary)
  digests.note(path, text)
  files.write_atomically(path / files.SUMMARY, text)


def _draw(lines, path, summary, agenda) -> None:
  from sparsejax.experiment.show import trace

  title = f'{summary["name"]}, seed {summary["seed"]}: {summary["model"]} on {summary["dataset"]}'
  place = path / files.TRACE
  trace.plot_trace(lines, place, title=title, prune_steps=agenda.cuts, summary=summary)
