"""The figures of a row of the page on CIFAR-10: those of its kept runs, with its trunk's added."""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tools.pages import kept
from tools.pages.entries import Entry
from tools.pages.pages import PAGES

PAGE = 'cifar10'
A_PASS, PASSES = 2, 3  # FLOPs per multiply-accumulate; forward pass, input and kernel gradients


class Kept(NamedTuple):
  """The kept files of one run."""

  summary: Mapping[str, Any]
  config: Mapping[str, Any]
  lines: Sequence[Mapping[str, Any]]  # the lines with an evaluation
  starts: Sequence[Mapping[str, Any]]

  @property
  def hours(self) -> float:
    """The hours that training took."""
    return self.summary['seconds'] / 3600

  @property
  def training_flops(self) -> float:
    """The cost of training if all three passes skip zeros: 6 per multiply-accumulate.

    The dense gradients of an exchange are not counted. A layer with a posterior computes two
    results and skips nothing.
    """
    if self.config['layers'] != 'deterministic':
      return 2 * PASSES * A_PASS * self.summary['macs'] * self.lines[-1]['examples']
    total, examples, macs = 0.0, 0, None
    for line in self.lines:
      now = line['active_macs']
      total += (line['examples'] - examples) * (now if macs is None else (now + macs) / 2)
      examples, macs = line['examples'], now
    return PASSES * A_PASS * total

  @property
  def layers_emptied(self) -> int:
    """The number of layers without a weight left."""
    return sum(layer['active_weights'] == 0 for layer in self.summary['layers'].values())


class Row(NamedTuple):
  """A row of the page with its runs, and the runs that they continue from."""

  entry: Entry
  runs: tuple[Kept, ...]
  trunks: tuple[Kept, ...]

  @property
  def network(self) -> str:
    """The model, with its width for resnet50, whose full width is for a GPU."""
    model, width, *_ = self.entry.label.split('_')
    return f'{model}_{width}' if model == 'resnet50' and width.startswith('width') else model

  def values(self, name: str) -> list[float]:
    """A figure of each run, from its summary or from `Kept`."""
    return [
      getattr(run, name) if hasattr(run, name) else float(run.summary[name]) for run in self.runs
    ]

  def whole(self, name: str) -> list[float]:
    """A cost of each run, including its trunk's."""
    before = [getattr(trunk, name) for trunk in self.trunks] or [0.0] * len(self.runs)
    return [a + b for a, b in zip(before, self.values(name), strict=True)]

  @property
  def epochs(self) -> float:
    """The epochs of training, including the trunk's."""
    return self.runs[0].summary['epochs'] + (self.trunks[0].summary['epochs'] if self.trunks else 0)


@functools.cache
def read(folder: pathlib.Path) -> Kept:
  """Returns the kept files in the folder of a run."""
  config, summary, starts = (
    kept.read(folder / f'{name}.json') for name in ('config', 'summary', 'environment')
  )
  lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return Kept(summary, config, [line for line in lines if 'validation_loss' in line], starts)


def rows() -> dict[str, Row]:
  """Returns the rows of the page by label, with the existing runs."""
  found = {}
  for entry in PAGES[PAGE].entries:
    folders = [path.parent for path in kept.summaries(PAGE, entry)]
    trunks = [kept.RESULTS / PAGE / entry.trunk / f.name for f in folders if entry.trunk]
    found[entry.label] = Row(entry, tuple(map(read, folders)), tuple(map(read, trunks)))
  return found
