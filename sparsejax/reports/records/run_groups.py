"""Groups of runs that differ only in their seed, and their labels."""

import collections
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.experiment.chain.links import PROXIMAL
from sparsejax.experiment.chain.pruning_links import PRUNING_LINKS
from sparsejax.experiment.config.identity import hashed_settings, short_name, short_value
from sparsejax.reports.records import collect

DENSE, UNSTRUCTURED, SEMI_STRUCTURED, STRUCTURED = (
  'dense',
  'unstructured',
  'semi-structured',
  'structured',
)
KINDS = (DENSE, UNSTRUCTURED, SEMI_STRUCTURED, STRUCTURED)
MOST_SETTINGS = 4  # settings in a label
# The transformations that remove weights.
TAKING = {*PRUNING_LINKS, 'hold', 'add_kl_gradients', *PROXIMAL}


class Group(NamedTuple):
  """An experiment: its runs are its seeds.

  Attributes:
    task: the data set and the model, with their size if it is reduced.
    label: the method, and what distinguishes this experiment from the method's others.
    method: the method, as in its config.
    kind: dense, unstructured, semi-structured or structured.
    runs: all of them.
    counted: the finished runs, each seed once.
  """

  task: str
  label: str
  method: str
  kind: str
  runs: tuple[collect.Run, ...]
  counted: tuple[collect.Run, ...]

  def moments(self, figure: str) -> tuple[float, float]:
    """Mean and standard deviation of a figure over the seeds; NaN if there are too few."""
    return moments([run.figure(figure) for run in self.counted])


def moments(values: Sequence[float]) -> tuple[float, float]:
  """Returns the mean and the sample standard deviation; NaN if there are too few values.

  Example:
    >>> moments([1.0, 3.0]), moments([])
    ((2.0, 1.4142135623730951), (nan, nan))
  """
  if not values:
    return math.nan, math.nan
  has_spread = len(values) > 1 and all(map(math.isfinite, values))
  return statistics.fmean(values), statistics.stdev(values) if has_spread else math.nan


def group(runs: Sequence[collect.Run]) -> list[Group]:
  """Returns the experiments, by task, method and active fraction."""
  members: dict[tuple, list[collect.Run]] = {}
  for run in runs:
    if run.config:
      members.setdefault(run.experiment, []).append(run)
  labels = _labels(members)
  found = [_group(key, labels[key], tuple(of_key)) for key, of_key in members.items()]
  return sorted(found, key=_order)


def shipped(groups: Sequence[Group]) -> list[Group]:
  """Returns the experiments whose runs were shipped, one for each way of shipping them.

  Their runs have the figures of the shipments (`shipments.Shipment`), and the accuracies of the
  networks in the files.
  """
  found = []
  for group in groups:
    by_options: dict[str, list[collect.Run]] = {}
    for run in group.counted:
      for shipment in run.shipments:
        measured = run._replace(summary={**run.summary, **shipment.figures})
        by_options.setdefault(shipment.options, []).append(measured)
    for options, runs in sorted(by_options.items()):
      label = f'{group.label}, {options}'
      found.append(group._replace(label=label, runs=tuple(runs), counted=tuple(runs)))
  return found


def _order(found: Group):
  active = found.moments('active_fraction')[0]
  return found.task, found.method, -active if math.isfinite(active) else 0.0, found.label


def _group(key, label, runs) -> Group:
  counted = tuple(run for run in runs if run.is_counted)
  return Group(key[0], label, key[1], _kind(runs), runs, counted)


def _kind(runs) -> str:
  config = runs[0].config
  if _is_dense(config):
    return DENSE
  blocks = [config[link] for link in PRUNING_LINKS if link in config]
  granularity = blocks[0].get('granularity', 'weight') if blocks else 'weight'
  if granularity == 'n_m':
    return SEMI_STRUCTURED
  by_groups = has_groups(config) or 'proximal_group_l1' in config
  return STRUCTURED if by_groups or granularity != 'weight' else UNSTRUCTURED


def has_groups(config: Mapping[str, Any]) -> bool:
  """Returns whether a run's posteriors have a log alpha for each group, not for each weight."""
  block = config.get(str(config.get('layers')))
  return isinstance(block, Mapping) and 'dense_groups' in block


def _is_dense(config: Mapping[str, Any]) -> bool:
  """Returns whether nothing in a config removes weights, so that its network is dense by design."""
  links = set(config.get('chain') or ())
  to_all = any(config.get(name, {}).get('density') == 1.0 for name in (*PRUNING_LINKS, 'lobs'))
  return bool(links or to_all) and not links & TAKING - ({*PRUNING_LINKS} if to_all else set())


def _labels(members: Mapping[tuple, Sequence[collect.Run]]) -> dict[tuple, str]:
  """Labels made of the method and the first few settings that differ between its experiments."""
  labels: dict[tuple, str] = {}
  families: dict[tuple, list[tuple]] = {}
  for key in members:
    families.setdefault(key[:2], []).append(key)
  for keys in families.values():
    settings = {key: hashed_settings(members[key][0].settings) for key in keys}
    names = sorted({name for found in settings.values() for name in found})
    values = {name: {repr(found.get(name)) for found in settings.values()} for name in names}
    # The setting with the most values comes first, since it is what the experiment is about.
    varying = sorted((n for n in names if len(values[n]) > 1), key=lambda n: (-len(values[n]), n))
    for key in keys:
      parts = [
        f'{short_name(n)} {short_value(settings[key].get(n))}' for n in varying[:MOST_SETTINGS]
      ]
      if len(varying) > MOST_SETTINGS:
        parts.append(str(key[2]))
      labels[key] = f'{key[1]}: {", ".join(parts)}' if parts else key[1]
  counts = collections.Counter((key[0], label) for key, label in labels.items())
  return {
    key: f'{label} ({key[2]})' if counts[key[0], label] > 1 else label
    for key, label in labels.items()
  }
