"""Generates the README.md of the measurements of tools/costs/sparse_cpu.py."""

import pathlib
from collections.abc import Mapping
from typing import Any

from sparsejax.reports.text.markdown import table
from tools.pages import kept

FOLDER = kept.RESULTS / 'cpu_sparse'
HEAD = """# Speed-up from unstructured sparsity on CPU

`cpu_sparse.sparse_apply` compared with the dense function, in float32 within `jax.jit`, timed in
alternating rounds in one process. Times are medians over the rounds; the ratio is given with its
smallest and largest value in a round. Zeros are at random positions, and every layer has the same
sparsity.
"""


def write(folder: pathlib.Path = FOLDER) -> None:
  """Writes the page from the existing figures."""
  found = [kept.read(path) for path in sorted(folder.glob('*_cores.json'))]
  (folder / 'README.md').write_text(text_of(found))


def text_of(reports: list[Mapping[str, Any]]) -> str:
  """Returns the page's text.

  Args:
    reports: the figures, a report for each number of cores.
  """
  parts = [HEAD]
  for report in reports:
    name = report['environment'].get('processor', 'a processor')
    parts.append(f'\n## {report["cores"]} of the cores of {name}\n')
    parts += _networks(report['networks'])
    parts += _layers(report['layers'])
  return '\n'.join([*parts, '\nMade by `python -m tools.costs.sparse_cpu`.']) + '\n'


def _networks(rows) -> list[str]:
  head = 'network | batch | zeros | dense, ms | sparse, ms | dense / sparse | of a round | rounds'
  return table(head, [_network(row) for row in rows]) if rows else []


def _network(row) -> str:
  dense, sparse = (f'{1e3 * row["seconds"][name]:.3g}' for name in ('dense', 'sparse'))
  least, most = row['spread']
  return (
    f'{row["network"]} | {row["batch"]:,} | {100 * row["sparsity"]:.1f} % | {dense} | {sparse} | '
    f'{row["speedup"]:.2f} | {least:.2f} to {most:.2f} | {row["rounds"]}'
  )


def _layers(layers) -> list[str]:
  if not layers:
    return []
  sparsities = [row['sparsity'] for row in layers[0]['rows']]
  columns = [f'{100 * sparsity:.0f} %' for sparsity in sparsities]
  return [
    '\nDense over sparse for a layer alone, by its share of zeros, and the share at which both\n'
    'take as long, between those that were measured:\n',
    *table(' | '.join(['kernel', 'batch', *columns, 'even at']), [_layer(one) for one in layers]),
  ]


def _layer(layer) -> str:
  ratios = [row['seconds']['dense'] / row['seconds']['kernel'] for row in layer['rows']]
  points = [row['sparsity'] for row in layer['rows']]
  size = 'x'.join(map(str, layer['kernel']))
  image = 'x'.join(map(str, layer['image'][:-1]))
  name = f'{size} over {image}' if image else size
  told = [f'{ratio:.2f}' for ratio in ratios]
  return ' | '.join([name, f'{layer["batch"]:,}', *told, even(points, ratios)])


def even(points: list[float], ratios: list[float]) -> str:
  """Returns where ratios cross 1 for good, between the points around it.

  Example:
    >>> even([0.5, 0.7], [0.8, 1.2]), even([0.5, 0.7], [1.1, 2.0]), even([0.5], [0.9])
    ('60 %', 'below 50 %', 'above 50 %')
  """
  slower = [i for i, ratio in enumerate(ratios) if ratio < 1]
  if not slower:
    return f'below {100 * points[0]:.0f} %'
  i = slower[-1]
  if i + 1 == len(points):
    return f'above {100 * points[-1]:.0f} %'
  share = (1 - ratios[i]) / (ratios[i + 1] - ratios[i])
  return f'{100 * (points[i] + share * (points[i + 1] - points[i])):.0f} %'
