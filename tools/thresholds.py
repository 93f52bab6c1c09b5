"""Validates a posterior under every combination of some thresholds.

python -m tools.thresholds PAGE/ROW --runs=DIR [--data=DIR] --of=fc1=2.0,2.3 --of=fc2=2.5,3.0

PAGE/ROW is a finished run of tools/reproduce.py, with its first seed. Nothing is trained and the
test set is not read. The figures go to results/PAGE/ROW/thresholds.json, from which reproduce.py
makes a table; the chosen combination is then a row of its own there.
"""

import argparse
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from sparsejax.experiment.config import base
from sparsejax.experiment.machine import compilation, files
from sparsejax.experiment.outcome import finished, threshold_options
from sparsejax.experiment.outcome.redeploy import look
from sparsejax.experiment.terminal.errors import UsageError
from tools.pages import kept
from tools.pages.pages import PAGES

SHOWN = ('thresholds', 'validation_accuracy', 'validation_loss', 'compression', 'architecture')


def combinations(named: Sequence[str]) -> list[str]:
  """Returns every combination of thresholds, each as `sparsejax.deploy` takes it.

  Example:
    >>> combinations(['fc1=2.0,2.3', 'fc2=3.0'])
    ['fc1=2.0,fc2=3.0', 'fc1=2.3,fc2=3.0']
  """
  by_layer = [(layer, values.split(',')) for layer, _, values in (n.partition('=') for n in named)]
  parts = [[f'{layer}={value}' for value in values] for layer, values in by_layer]
  return [','.join(combination) for combination in itertools.product(*parts)]


def validated(run: pathlib.Path, data: str | None, named: Sequence[str]) -> list[dict[str, Any]]:
  """Returns the validation figures of each combination, or the reason why it is refused."""
  source, found = finished.read(run), []
  for text in combinations(named):
    config = threshold_options.change(source.config, source.summary, thresholds=text)
    if data is not None:
      config['data'] = {**config['data'], 'dir': data}
    try:
      figures = look(source, config, base.defaults(config), version=base.VERSION)
      found.append({name: figures[name] for name in SHOWN})
    except UsageError as error:
      found.append({'asked': text, 'refused': str(error)})
    print(found[-1], flush=True)
  return found


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('row', metavar='PAGE/ROW')
  parser.add_argument('--runs', type=pathlib.Path, required=True, help='as for reproduce.py')
  parser.add_argument('--data', help='the folder of tensorflow-datasets; default: its own')
  parser.add_argument('--of', action='append', required=True, help='LAYER=NUMBER,NUMBER')
  arguments = parser.parse_args()
  page, _, label = arguments.row.partition('/')
  entry = next(entry for entry in PAGES[page].entries if entry.label == label)
  compilation.use_cache()
  run = arguments.runs / page / label / f'seed{entry.seeds[0]}'
  found = validated(run, arguments.data, arguments.of)
  (kept.RESULTS / page / label).mkdir(parents=True, exist_ok=True)
  files.write_json(kept.RESULTS / page / label / kept.THRESHOLDS, found)


if __name__ == '__main__':
  main()
