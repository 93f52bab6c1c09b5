"""What the page on CIFAR-10 says of a row: figures of its kept runs, those of its trunk added."""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tools.pages import kept
from tools.pages.entries import Entry
from tools.pages.pages import PAGES

PAGE = 'cifar10'
A_PASS, PASSES = 2, 3  # FLOPs of a multiply-accumulate; forward, and back to inputs and to kernels


class Kept(NamedTuple):
  """What is kept of one run."""

  summary: Mapping[str, Any]
  config: Mapping[str, Any]
  lines: Sequence[Mapping[str, Any]]  # those with an evaluation in them
  starts: Sequence[Mapping[str, Any]]

  @property
  def hours(self) -> float:
    """That training took."""
    return self.summary['seconds'] / 3600

  @property
  def training_flops(self) -> float:
    """What training costs where zeros are skipped in all three passes: 6 a multiply-accumulate.

    An exchange's dense gradients are not counted. A layer with a posterior computes two results,
    and skips nothing.
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
    """How many layers have no weight left."""
    return sum(layer['active_weights'] == 0 for layer in self.summary['layers'].values())


class Row(NamedTuple):
  """A row of the page with its runs, and those that they go on from."""

  entry: Entry
  runs: tuple[Kept, ...]
  trunks: tuple[Kept, ...]

  @property
  def network(self) -> str:
    """The model; of resnet50, whose full width is for a GPU, its width too."""
    model, width, *_ = self.entry.label.split('_')
    return f'{model}_{width}' if model == 'resnet50' and width.startswith('width') else model

  def values(self, name: str) -> list[float]:
    """A figure of each run's summary; of a run's own, one of `Kept`'s."""
    return [
      getattr(run, name) if hasattr(run, name) else float(run.summary[name]) for run in self.runs
    ]

  def whole(self, name: str) -> list[float]:
    """A cost of each run with that of its trunk."""
    before = [getattr(trunk, name) for trunk in self.trunks] or [0.0] * len(self.runs)
    return [a + b for a, b in zip(before, self.values(name), strict=True)]

  @property
  def epochs(self) -> float:
    """Of training, the trunk's among them."""
    return self.runs[0].summary['epochs'] + (self.trunks[0].summary['epochs'] if self.trunks else 0)


@functools.cache
def read(folder: pathlib.Path) -> Kept:
  """Returns what is kept in the folder of a run."""
  config, summary, starts = (
    kept.read(folder / f'{name}.json') for name in ('config', 'summary', 'environment')
  )
  lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
  return Kept(summary, config, [line for line in lines if 'validation_loss' in line], starts)


def rows() -> dict[str, Row]:
  """Returns the rows of the page by label, with the runs that are there."""
  found = {}
  for entry in PAGES[PAGE].entries:
    folders = [path.parent for path in kept.summaries(PAGE, entry)]
    trunks = [kept.RESULTS / PAGE / entry.trunk / f.name for f in folders if entry.trunk]
    found[entry.label] = Row(entry, tuple(map(read, folders)), tuple(map(read, trunks)))
  return found
