"""The README.md of the page on CIFAR-10, made only from the kept files."""

import statistics
from collections.abc import Iterable, Mapping, Sequence

from sparsejax.reports.figures import published
from sparsejax.reports.text import cells
from sparsejax.reports.text.markdown import table, times
from tools.pages import kept
from tools.pages.cifar10 import figures
from tools.pages.cifar10 import rows as cifar10_rows
from tools.pages.cifar10.rows import Row

FOLDER = kept.RESULTS / cifar10_rows.PAGE
NETWORKS = ('vgg16', 'mobilenet', 'resnet20', 'resnet50_width16', 'resnet50_width32', 'resnet50')
POINTS = ('5_percent', '1_percent', '0.5_percent', '0.1_percent')
INTRODUCTION = """\
Whole networks, all images. 45,000 images are for training, 5,000 choose the network by its
accuracy, and the test set is read once. Augmentation is a crop from 4 pixels of padding and a flip;
vgg16 and resnet50 also have label smoothing of 0.1 and a cutout of 8 pixels. A dense **trunk** of
each seed is trained for 30 epochs; methods that start dense continue from it for 20 more, and
`control` does so without a cut. Methods that start sparse, and `dense`, train for 50 epochs from
scratch. [The trials](../cifar10_trials/README.md) show how these rates were chosen. Rows of 180
epochs are for a GPU, in bfloat16: 40,000 images, the log's own recipe.

Epochs, hours and training FLOPs are those of a row and its trunk together. Training FLOPs are six
for each multiply-accumulate of a non-zero weight: what training would cost if zeros were skipped;
here they are not. Weights are kernels; scales are BatchNorm's; a layer is emptied when it has no
weight left. Compression is weights over active weights; the speed-up is theoretical:
multiply-accumulates over active ones. Deviations are over seeds.
""".replace('\n', ' ').replace('  ', '\n\n')


def write() -> None:
  """Draws the page's figures and writes its README.md."""
  FOLDER.mkdir(exist_ok=True)
  rows = cifar10_rows.rows()
  figures.draw(rows, FOLDER)
  (FOLDER / 'README.md').write_text(text())


def text() -> str:
  """Returns the page's text."""
  rows = cifar10_rows.rows()
  parts = ['# CIFAR-10 at full size', '', *_paragraphs(INTRODUCTION)]
  parts += ['## Beside the log', '', *_beside_the_log(rows), '']
  parts += _pictures(figures.OVERVIEWS)
  parts += ['## The questions of the log', '', *_questions(rows)]
  for network in NETWORKS:
    own = [row for row in rows.values() if row.network == network]
    parts += [f'## {network.replace("_width", ", width ")}', '']
    parts += _pictures((figures.pareto_name(network),))
    parts += [*_table(own), '']
  parts += ['Made by `python -m tools.reproduce cifar10 --runs=DIR`.', *_machines(rows.values())]
  traces = sorted(FOLDER.glob('*/seed*/trace.png'))
  parts += [f'\n![{p.parent.parent.name}]({p.relative_to(FOLDER)})' for p in traces]
  return '\n'.join(parts) + '\n'


def _paragraphs(text: str) -> list[str]:
  return [line for paragraph in text.split('\n\n') for line in (paragraph.strip(), '')]


def _pictures(names: Iterable[str]) -> list[str]:
  """The lines that show the existing figures of the page."""
  there = [name for name in names if (FOLDER / name).exists()]
  return [f'![{name.removesuffix(".png").replace("_", " ")}]({name})\n' for name in there]


def _table(rows: Sequence[Row]) -> list[str]:
  head = (
    'row | method | allocation | n | test accuracy, % | validation, % | weights kept | '
    'scales kept | layers emptied | compression | speed-up | epochs | training FLOPs | hours'
  )
  return table(head, [_cells(row) for row in rows])


def _cells(row: Row) -> str:
  name = row.entry.label.removeprefix(f'{row.network}_')
  if not row.runs:
    return f'{name} | | | 0 | not run' + ' |' * 9
  summary = row.runs[0].summary
  of = {
    what: f'{statistics.mean(row.values(f"active_{what}")):,.0f} of {summary[what]:,}'
    for what in ('weights', 'scales')
    if what in summary
  }
  return ' | '.join(
    (
      name,
      _method(row),
      allocation(row.runs[0].config),
      str(len(row.runs)),
      cells.format_percent(row.values('test_accuracy')),
      cells.format_percent(row.values('validation_accuracy')),
      of['weights'],
      of.get('scales', '-'),
      f'{statistics.mean(row.values("layers_emptied")):g}',
      times(statistics.mean(row.values('compression'))),
      times(statistics.mean(row.values('theoretical_speedup'))),
      f'{row.epochs:g}',
      f'{statistics.mean(row.whole("training_flops")):.2e}',
      f'{statistics.mean(row.whole("hours")):.1f}',
    )
  )


def _method(row: Row) -> str:
  """The method, as in the config; a row that keeps everything is the control of rows that cut."""
  run = row.runs[0]
  is_control = (run.config.get('prune') or {}).get('density') == 1
  return 'none, a control' if is_control else run.summary['method']


def allocation(config: Mapping) -> str:
  """Returns how a config allocates the remaining weights, and among which parameters."""
  prune = config.get('prune')
  if prune is None or prune['density'] == 1.0:
    return '-'
  names = {'erk': 'ERK', 'global_rank': 'global rank', 'absolute_threshold': 'threshold'}
  spared = ', scales stay' if '/scale$' in prune['exclude'] else ''
  floor = ', no floor' if prune['floor'] == 0 and prune['density'] else ''
  return f'{names[prune["allocation"]]}, {prune["parameters"]}{spared}{floor}'


def _beside_the_log(rows: Mapping[str, Row]) -> list[str]:
  """The log's accuracies at its four points, and those of one cut and gradual pruning here."""
  head = (
    'network | active | log, validation, % | one cut of all parameters: validation, % | test, % | '
    'gradual, kernels, ERK: test, %'
  )
  lines = []
  for network in NETWORKS:
    logged = published.points(f'{network.partition("_")[0]} on cifar10').get('log of 2017', [])
    by_fraction = {point.active_fraction: point.accuracy for point in logged}
    for point in POINTS:
      percent = float(point.partition('_')[0])
      log = by_fraction.get(percent / 100) if '_' not in network else None
      row = _first(rows, f'{network}_exact_{point}', f'{network}_180_{point}')
      gradual = rows.get(f'{network}_gradual_{point}')
      lines.append(
        f'{network.replace("_width", ", width ")} | {percent:g} % | '
        f'{"-" if log is None else f"{100 * log:.1f}"} | {_percent(row, "validation_accuracy")} | '
        f'{_percent(row, "test_accuracy")} | {_percent(gradual, "test_accuracy")}'
      )
  note = "The log's validation images were augmented; ours are not. Its resnet50 has full width."
  return [note, '', *table(head, lines)]


def _first(rows: Mapping[str, Row], *labels: str) -> Row | None:
  """The first of some rows that has a run, else the first that exists."""
  there = [rows[label] for label in labels if label in rows]
  return next((row for row in there if row.runs), there[0] if there else None)


def _percent(row: Row | None, figure: str) -> str:
  if row is None:
    return '-'
  return cells.format_percent(row.values(figure)) if row.runs else 'not run'


def _questions(rows: Mapping[str, Row]) -> list[str]:
  return [
    '### Does a pruned wide network beat a dense narrow one? (4 to 6 October)',
    '',
    *_narrow(rows),
    '',
    '### Where does training break down, is it a phase change, does a floor move it? (14 December)',
    '',
    *_pictures((figures.BREAKDOWN,)),
    *_breakdown(rows),
    '',
    '### Why did MobileNet go first? (14 December)',
    '',
    *_scales(rows),
    '',
    '### Does the active fraction fall after the cut? (6 November)',
    '',
    *_pictures((figures.THROUGH_THE_CUT,)),
    *_after_the_cut(rows),
    '',
  ]


def _narrow(rows: Mapping[str, Row]) -> list[str]:
  """Narrower dense networks among pruned ones, for each model the largest first."""
  models = {label.partition('_')[0] for label in rows if _is_narrow(label) and rows[label].runs}
  shown = []
  for label, row in rows.items():
    model, _, rest = label.partition('_')
    if model in models and row.runs and (_is_narrow(label) or rest.startswith(COMPARED)):
      active = statistics.mean(row.values('active_parameters'))
      line = f'{label} | {active:,.0f} | {_percent(row, "test_accuracy")}'
      shown.append((model, -active, line))
  head = 'row | active parameters | test accuracy, %'
  return table(head, [line for *_, line in sorted(shown)]) if shown else ['Not run.']


COMPARED = tuple(f'{method}_{point}' for method in ('exact', 'gradual') for point in POINTS)


def _is_narrow(label: str) -> bool:
  return 'width' in label and label.endswith('_dense')


def _breakdown(rows: Mapping[str, Row]) -> list[str]:
  rules = {'rank': 'global rank, floor of 1', 'rank_no_floor': 'no floor', 'erk': 'ERK'}
  points = ('2', '1', '0.5', '0.3', '0.2', '0.1')
  found = {
    (rule, p): rows[f'resnet20_exact_kernels_{rule}_{p}_percent'] for rule in rules for p in points
  }
  if not any(row.runs for row in found.values()):
    return ['Not run.']
  lines = [
    f'{p} % | '
    + ' | '.join(
      f'{_percent(found[rule, p], "test_accuracy")} | {_emptied(found[rule, p])}' for rule in rules
    )
    for p in points
  ]
  head = 'of the kernels | ' + ' | '.join(f'{name}: test, % | emptied' for name in rules.values())
  return table(head, lines)


def _emptied(row: Row) -> str:
  return f'{statistics.mean(row.values("layers_emptied")):g}' if row.runs else '-'


def _scales(rows: Mapping[str, Row]) -> list[str]:
  """Weights and scales left by a rank over all parameters, and the effect of sparing scales."""
  labels = [f'{network}_exact_{p}' for network in NETWORKS[:3] for p in POINTS]
  labels += [f'mobilenet_exact_{p}_scales_stay' for p in ('0.5_percent', '0.1_percent')]
  found = [rows[label] for label in labels if rows[label].runs]
  lines = []
  for row in found:
    s = row.runs[0].summary
    lines.append(
      f'{row.entry.label} | {s["active_parameters"]:,} | {s["active_weights"]:,} | '
      f'{s["active_scales"]:,} of {s["scales"]:,} | {_emptied(row)} of {len(s["layers"])} | '
      f'{_percent(row, "test_accuracy")}'
    )
  head = 'row | active parameters | weights | scales | layers emptied | test accuracy, %'
  return table(head, lines) if lines else ['Not run.']


def _after_the_cut(rows: Mapping[str, Row]) -> list[str]:
  """Shares not zero and above 1e-3, just after the cut and at the end, as in the log."""
  head = (
    'row | not zero: after the cut | at the end | above 1e-3: after the cut | least | at the end'
  )
  lines = []
  for label, row in rows.items():
    method, _, rest = label.partition('_')[2].partition('_')
    if row.runs and (method == 'threshold' or (method == 'exact' and rest in POINTS)):
      own = [line for line in row.runs[0].lines if line['step'] > 0]
      active = [line['active_fraction'] for line in own]
      above = [1 - line['below_1e-3'] for line in own]
      shares = (active[0], active[-1], above[0], min(above), above[-1])
      lines.append(f'{label} | ' + ' | '.join(f'{100 * share:.3f} %' for share in shares))
  return table(head, lines) if lines else ['Not run.']


def _machines(rows: Iterable[Row]) -> list[str]:
  """A line for each machine that runs used, with the code."""
  commits: dict[str, set[str]] = {}
  for row in rows:
    for start in (start for run in row.runs for start in run.starts):
      machine = f'{start["cpus"]} cores of {start["processor"]}'
      if start['backend'] != 'cpu':
        machine = ', '.join(sorted(set(start['devices'])))
      machine += f', Python {start["python"]}, JAX {start["versions"]["jax"]}'
      commits.setdefault(machine, set()).add(kept.commit_of(start))
  return [f'{name}: code of {", ".join(sorted(own))}.' for name, own in sorted(commits.items())]
