"""One HTML page that opens anywhere, offline: curves that answer the mouse, figures, every run."""

import base64
import html
import itertools
import math
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from sparsejax.experiment import files, scales
from sparsejax.experiment.scales import percent
from sparsejax.reports import figures, published, tables
from sparsejax.reports.collect import DELIVERED, Run
from sparsejax.reports.groups import Group
from sparsejax.reports.searches import Search

SYMBOLS = {
  'o': 'circle',
  's': 'square',
  '^': 'triangle-up',
  'D': 'diamond',
  'v': 'triangle-down',
  'P': 'cross',
  'X': 'x',
  '<': 'triangle-left',
  '>': 'triangle-right',
}
PUBLISHED = ('star', 'hexagon', 'pentagon', 'diamond-tall', 'octagon')
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 1.5rem; }
th { text-align: left; border-bottom: 2px solid #444; cursor: pointer; vertical-align: bottom; }
td { border-bottom: 1px solid #ddd; } th, td { padding: .25rem .6rem .25rem 0; }
td + td { white-space: nowrap; }
tr:target td { background: #fff3c4; }
.scroll { overflow-x: auto; } img { max-width: 100%; } a { color: #0072B2; }
.stopped { color: #666; } .unfinished, .failed, .broken, .collapsed { color: #B34700; }
nav a { margin-right: 1rem; }
"""
# A click on a column's head sorts by it; a click on a point goes to its run.
SCRIPT = """
document.querySelectorAll('th').forEach(function (head) {
  head.addEventListener('click', function () {
    var body = head.closest('table').tBodies[0], column = head.cellIndex;
    var down = head.dataset.down = head.dataset.down === '1' ? '' : '1';
    var key = function (row) {
      var text = row.cells[column].textContent.replace(/,/g, ''), number = parseFloat(text);
      return isNaN(number) ? text : number;
    };
    Array.from(body.rows).sort(function (a, b) {
      var x = key(a), y = key(b);
      if (typeof x !== typeof y) { x = String(x); y = String(y); }
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    }).forEach(function (row) { body.appendChild(row); });
  });
});
document.querySelectorAll('.plotly-graph-div').forEach(function (plot) {
  plot.on('plotly_click', function (event) {
    var run = event.points[0].customdata;
    if (run) { window.location.hash = run; }
  });
});
"""


def page(
  groups: Sequence[Group],
  runs: Sequence[Run],
  searches: Sequence[Search],
  pictures: Mapping[str, Sequence[pathlib.Path]],
  root: pathlib.Path,
) -> str:
  """Returns the page's text.

  Args:
    groups: the experiments.
    runs: every run.
    searches: that some of the runs belong to.
    pictures: PNG files by task, and by the stem of a search.
    root: the folder of the page, which links are relative to.
  """
  anchors = {run.path: f'run-{index}' for index, run in enumerate(runs)}
  tasks = list(dict.fromkeys(group.task for group in groups))
  body = ['<h1>Runs</h1>', *(f'<p>{html.escape(line)}</p>' for line in tables.states(runs))]
  body.append('<nav>' + ''.join(_link(f'#{tables.stem_of(t)}', t) for t in tasks))
  body += [_link(f'#{tables.search_stem(i)}', s.title) for i, s in enumerate(searches)]
  body.append(_link('#runs', 'every run') + _link('#wrong', 'what is wrong') + '</nav>')
  for task in tasks:
    own = [group for group in groups if group.task == task]
    body.append(f'<h2 id="{tables.stem_of(task)}">{html.escape(task)}</h2>')
    if (curve := pareto(task, own, anchors)) is not None:
      body.append(plotly.io.to_html(curve, full_html=False, include_plotlyjs=False))
      if others := published.points(task):
        body.append(f'<p>{html.escape(published.note(others))}</p>')
    for kind, head, rows in tables.task_tables(own):
      body += [f'<h3>{kind}</h3>', _table(head, [[html.escape(c) for c in row] for row in rows])]
    body += [_image(path) for path in pictures.get(task, ())]
  for index, search in enumerate(searches):
    stem = tables.search_stem(index)
    body.append(f'<h2 id="{stem}">{html.escape(search.title)}</h2>')
    body.append(f'<p>{html.escape(search.goals)}</p>')
    if search.rows:
      head, rows = search.head, search.rows
      body.append(_table(head, [[html.escape(cell) for cell in row] for row in rows]))
    body += [_image(path) for path in pictures.get(stem, ())]
  body += ['<h2 id="runs">Every run</h2>', _runs(runs, anchors, root)]
  body += ['<h2 id="wrong">What is wrong</h2>', _problems(runs, searches, anchors)]
  body += ['<h2>Machines</h2>', *(f'<p>{html.escape(m)}</p>' for m in tables.machines(runs))]
  return '\n'.join(
    [
      '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Runs</title>',
      f'<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>',
      *body,
      f'<script>{SCRIPT}</script></body></html>\n',
    ]
  )


def pareto(
  task: str, groups: Sequence[Group], anchors: Mapping[pathlib.Path, str]
) -> go.Figure | None:
  """Returns the curve with every run as a point that says what it is and leads to its row."""
  methods = figures.by_method(groups)
  if not methods:
    return None
  others = published.points(task)
  spaced = scales.spacing(_accuracies(groups, others))
  drawn = go.Figure()
  for method, style in figures.styles(list(methods)).items():
    _add_method(drawn, method, methods[method], style, spaced, anchors)
  for (source, points), symbol in zip(others.items(), itertools.cycle(PUBLISHED), strict=False):
    _add_published(drawn, source, points, symbol, spaced)
  if (dense := figures.best_dense(groups)) is not None:
    line, (mean, _) = {'dash': 'dash', 'width': 1}, dense[0].moments('test_accuracy')
    text = f'{dense[1]}, {100 * mean:.2f} %'
    drawn.add_hline(y=float(spaced.forward(mean)), line=line, annotation_text=text)
  drawn.update_layout(
    template='plotly_white',
    height=520,
    margin={'l': 60, 'r': 20, 't': 30, 'b': 50},
    xaxis={'type': 'log', 'title': 'active parameters, %', 'dtick': 1},
    yaxis={
      'title': 'test accuracy, % (by the log of the error)',
      'tickvals': [float(spaced.forward(tick)) for tick in spaced.ticks],
      'ticktext': [f'{100 * tick:.4g}' for tick in spaced.ticks],
    },
  )
  return drawn


def _add_method(
  drawn: go.Figure,
  method: str,
  own: Sequence[Group],
  style: Mapping[str, str],
  spaced: scales.Spacing,
  anchors: Mapping[pathlib.Path, str],
) -> None:
  """Adds a method's means with their deviations, its front, and every seed as a small point."""
  look = {'color': style['color'], 'symbol': SYMBOLS[style['marker']], 'size': 9}
  fractions = [100 * g.moments('active_fraction')[0] for g in own]
  means, spreads = np.array([g.moments('test_accuracy') for g in own]).T
  spreads = np.nan_to_num(spreads)
  places, above, below = map(spaced.forward, (means, means + spreads, means - spreads))
  drawn.add_scatter(
    x=fractions,
    y=places.tolist(),
    error_y={
      'type': 'data',
      'array': (above - places).tolist(),
      'arrayminus': (places - below).tolist(),
      'width': 3,
    },
    mode='markers',
    marker=look,
    name=method,
    legendgroup=method,
    text=[_of_mean(group) for group in own],
    hovertemplate='%{text}<extra></extra>',
    customdata=[anchors[group.counted[0].path] for group in own],
  )
  best = figures.front(list(zip(fractions, places.tolist(), strict=True)))
  drawn.add_scatter(
    x=[x for x, _ in best],
    y=[y for _, y in best],
    mode='lines',
    line={'color': style['color'], 'width': 1},
    legendgroup=method,
    showlegend=False,
    hoverinfo='skip',
  )
  each = [run for group in own for run in group.counted if len(group.counted) > 1]
  drawn.add_scatter(
    x=[100 * run.figure('active_fraction') for run in each],
    y=[float(spaced.forward(run.figure('test_accuracy'))) for run in each],
    mode='markers',
    marker=look | {'size': 4, 'opacity': 0.6},
    legendgroup=method,
    showlegend=False,
    text=[_of_run(run) for run in each],
    hovertemplate='%{text}<extra></extra>',
    customdata=[anchors[run.path] for run in each],
  )


def _add_published(
  drawn: go.Figure, source: str, points, symbol: str, spaced: scales.Spacing
) -> None:
  drawn.add_scatter(
    x=[100 * point.active_fraction for point in points],
    y=[float(spaced.forward(point.accuracy)) for point in points],
    mode='lines+markers',
    marker={'color': figures.GREY, 'symbol': symbol, 'size': 9},
    line={'color': figures.GREY, 'width': 1, 'dash': 'dot'},
    name=source,
    text=[_of_point(source, point) for point in points],
    hovertemplate='%{text}<extra></extra>',
  )


def _accuracies(groups, others) -> np.ndarray:
  found = [run.figure('test_accuracy') for group in groups for run in group.counted]
  found += [point.accuracy for points in others.values() for point in points]
  return np.array([accuracy for accuracy in found if math.isfinite(accuracy)])


def _of_point(source: str, point: published.Point) -> str:
  return (
    f'<b>{html.escape(source)}</b><br>{100 * point.accuracy:.2f} %<br>'
    f'{percent(point.active_fraction)} of the weights active'
  )


def _of_mean(group: Group) -> str:
  accuracy, spread = group.moments('test_accuracy')
  around = f' ± {100 * spread:.2f}' if math.isfinite(spread) else ''
  return (
    f'<b>{html.escape(group.label)}</b><br>{100 * accuracy:.2f}{around} %, n = {len(group.counted)}'
    f'<br>{percent(group.moments("active_fraction")[0])} active'
  )


def _of_run(run: Run) -> str:
  return (
    f'<b>{html.escape(run.name)}</b><br>{100 * run.figure("test_accuracy"):.2f} %<br>'
    f'{percent(run.figure("active_fraction"))} active'
  )


RUN = ('run', 'state', 'experiment', 'epoch', 'active', 'validation', 'test', 'files')


def _runs(runs: Sequence[Run], anchors: Mapping[pathlib.Path, str], root: pathlib.Path) -> str:
  rows, ids = [], []
  for run in runs:
    path = urllib.parse.quote(tables.relative(run.path, root))
    found = [name for name in (files.SUMMARY, files.TRACE) if (run.path / name).exists()]
    links = ' '.join(_link(f'{path}/{name}', name) for name in found)
    accuracies = [run.figure(f'{split}_accuracy') for split in ('validation', 'test')]
    if run.state not in DELIVERED:
      accuracies[1] = math.nan
    rows.append(
      [
        _link(f'{path}/', run.name),
        f'<span class="{run.state}">{run.state}</span>',
        html.escape(run.method),
        f'{run.epoch:g}',
        _percent(run.figure('active_fraction')),
        *(f'{100 * a:.2f} %' if math.isfinite(a) else '-' for a in accuracies),
        links,
      ]
    )
    ids.append(anchors[run.path])
  return _table(RUN, rows, ids)


def _percent(value: float) -> str:
  return percent(value) if math.isfinite(value) else '-'


def _problems(
  runs: Sequence[Run], searches: Sequence[Search], anchors: Mapping[pathlib.Path, str]
) -> str:
  wrong = tables.problems(runs, searches)
  if not wrong:
    return '<p>Nothing.</p>'
  by_name = {run.name: anchors[run.path] for run in runs}
  rows = [
    [
      _link(f'#{by_name[name]}', name) if name in by_name else html.escape(name),
      state,
      html.escape(what),
    ]
    for name, state, what in wrong
  ]
  return _table(('run', 'state', 'problem'), rows)


def _link(target: str, text: str) -> str:
  return f'<a href="{html.escape(target)}">{html.escape(text)}</a>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], ids: Sequence[str] = ()) -> str:
  """A table of cells that are HTML already."""
  lines = ['<div class="scroll"><table><thead><tr>']
  lines += [f'<th>{html.escape(name)}</th>' for name in head]
  lines.append('</tr></thead><tbody>')
  for index, row in enumerate(rows):
    anchor = f' id="{ids[index]}"' if ids else ''
    lines.append(f'<tr{anchor}>' + ''.join(f'<td>{cell}</td>' for cell in row) + '</tr>')
  return '\n'.join([*lines, '</tbody></table></div>'])


def _image(path: pathlib.Path) -> str:
  content = base64.b64encode(path.read_bytes()).decode()
  what = html.escape(path.stem.replace('_', ' ').replace('.', ': '))
  return f'<p><img alt="{what}" src="data:image/png;base64,{content}"></p>'
