"""One HTML page that opens anywhere, offline: interactive curves, figures, and every run."""

import base64
import collections
import html
import io
import math
import os
import pathlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.io
from PIL import Image
from plotly.offline import get_plotlyjs

from sparsejax.experiment.config.identity import hashed_settings, short_name, short_value
from sparsejax.experiment.machine import files
from sparsejax.experiment.terminal.errors import in_one_line
from sparsejax.experiment.terminal.numbers import percent
from sparsejax.reports.figures import interactive, pareto
from sparsejax.reports.records.collect import DELIVERED, Run
from sparsejax.reports.records.run_groups import Group
from sparsejax.reports.text import tables
from sparsejax.reports.text.drawn import Drawn, Picture
from sparsejax.reports.text.searches import Search

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
table { border-collapse: collapse; font-size: 13px; margin: .5rem 0 1.5rem; }
th { text-align: left; vertical-align: bottom; position: sticky; top: 0; background: #fff;
  box-shadow: inset 0 -2px #444; }
th button { font: inherit; color: inherit; text-align: left; padding: 0; border: 0; cursor: pointer;
  background: none; }
th button::after { content: '\\00a0\\2195'; color: #999; }
th[aria-sort=ascending] button::after { content: '\\00a0\\2191'; color: inherit; }
th[aria-sort=descending] button::after { content: '\\00a0\\2193'; color: inherit; }
td { border-bottom: 1px solid #ddd; } th, td { padding: .25rem .6rem .25rem 0; }
td { white-space: nowrap; } td.long { white-space: normal; min-width: 14rem; }
tr:target td { background: #fff3c4; }
.scroll { overflow: auto; max-height: 90vh; } tr { scroll-margin-top: 5rem; } a { color: #0072B2; }
.picture { display: block; padding: 0; border: 0; margin: 1rem 0; background: none;
  cursor: zoom-in; }
.picture img { display: block; max-width: 100%; height: auto; }
.wide { position: relative; left: 50%; transform: translateX(-50%); width: max-content;
  max-width: calc(100vw - 3rem); }
dialog { max-width: 96vw; max-height: 96vh; padding: 0; cursor: zoom-out; }
.stopped { color: #666; } .unfinished, .failed, .broken, .collapsed { color: #B34700; }
nav a { margin-right: 1rem; }
.filter { position: sticky; top: 0; z-index: 2; background: #fff; padding: .4rem 0; }
.filter input { font: inherit; width: min(30rem, 90%); padding: .2rem .4rem; }
.filter output { margin-left: .6rem; color: #666; }
"""
# The box keeps only the rows and points of runs that contain all of its words. A click on the head
# of a column sorts by it, numbers before words and missing cells last. A click on a point goes to
# its run; a click on a picture opens it in full size.
SCRIPT = """
function compare(x, y, sign) {
  if ((x === '-') !== (y === '-')) { return x === '-' ? 1 : -1; }
  var a = parseFloat(x.replace(/,/g, '')), b = parseFloat(y.replace(/,/g, ''));
  if (isNaN(a) !== isNaN(b)) { return sign * (isNaN(a) ? 1 : -1); }
  return sign * (a - b || x.localeCompare(y, 'en', { numeric: true }));
}
document.querySelectorAll('th button').forEach(function (button) {
  button.addEventListener('click', function () {
    var head = button.parentNode, body = head.closest('table').tBodies[0];
    var sign = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    var text = function (row) { return row.cells[head.cellIndex].textContent.trim(); };
    Array.from(head.parentNode.cells).forEach(function (th) { th.removeAttribute('aria-sort'); });
    head.setAttribute('aria-sort', sign > 0 ? 'ascending' : 'descending');
    Array.from(body.rows).sort(function (a, b) {
      return compare(text(a), text(b), sign);
    }).forEach(function (row) { body.appendChild(row); });
  });
});
document.querySelectorAll('.plotly-graph-div').forEach(function (plot) {
  plot.on('plotly_click', function (event) {
    var run = event.points[0].customdata;
    if (run) { window.location.hash = run; }
  });
});
var box = document.querySelector('.filter input'), told = document.querySelector('.filter output');
function filter() {
  var words = box.value.toLowerCase().split(/\\s+/).filter(Boolean), shown = {}, count = 0;
  document.querySelectorAll('tbody tr').forEach(function (row) {
    var text = row.textContent.toLowerCase();
    row.hidden = !words.every(function (word) { return text.includes(word); });
    if (row.id) { shown[row.id] = !row.hidden; count += !row.hidden; }
  });
  told.textContent = words.length ? count + ' runs' : '';
  document.querySelectorAll('.plotly-graph-div').forEach(function (plot) {
    var chosen = plot.data.map(function (trace) {
      if (!words.length || !trace.customdata) { return null; }
      return Array.from(trace.customdata.keys()).filter(function (n) {
        return shown[trace.customdata[n]];
      });
    });
    Plotly.restyle(plot, { selectedpoints: chosen, 'unselected.marker.opacity': 0.04 });
  });
}
var waiting;
box.addEventListener('input', function () {
  clearTimeout(waiting);
  waiting = setTimeout(filter, 150);
});
var full = document.querySelector('dialog');
document.querySelectorAll('.picture').forEach(function (picture) {
  picture.addEventListener('click', function () {
    var image = picture.firstChild;
    full.firstChild.src = image.src;
    full.firstChild.alt = image.alt;
    full.showModal();
    full.scrollTo(0, 0);
  });
});
full.addEventListener('click', function () { full.close(); });
"""
FILTER = (
  '<p class="filter"><label>Only <input type="search" placeholder="words of a row: lenet5 rigl '
  'seed0"></label><output></output></p>'
)
LONG = 40  # a cell of more characters is broken into lines
WIDE = 1148  # the width of the text in pixels


def page(
  groups: Sequence[Group],
  runs: Sequence[Run],
  searches: Sequence[Search],
  drawn: Drawn,
  root: pathlib.Path,
) -> str:
  """Returns the page's text.

  Args:
    groups: the experiments.
    runs: every run.
    searches: the searches that some of the runs belong to.
    drawn: the figures.
    root: the folder of the page, which its links are relative to.
  """
  anchors = {run.path: f'run-{index}' for index, run in enumerate(runs)}
  tasks = list(dict.fromkeys(group.task for group in groups))
  body = ['<h1>Runs</h1>', *(f'<p>{html.escape(line)}</p>' for line in tables.states(runs))]
  body.append(FILTER)
  body.append('<nav>' + ''.join(_link(f'#{tables.task_stem(t)}', t) for t in tasks))
  body += [_link(f'#{tables.search_stem(i)}', s.title) for i, s in enumerate(searches)]
  body.append(_link('#runs', 'every run') + _link('#wrong', 'what is wrong') + '</nav>')
  for task in tasks:
    body += _task(task, [group for group in groups if group.task == task], drawn, anchors)
  for index, search in enumerate(searches):
    body += _search(tables.search_stem(index), search, drawn)
  body += ['<h2 id="runs">Every run</h2>', _runs(runs, anchors, root)]
  body += ['<h2 id="wrong">What is wrong</h2>', _problems(runs, searches, drawn, anchors)]
  body += ['<h2>Machines</h2>', *(f'<p>{html.escape(m)}</p>' for m in tables.machines(runs))]
  return '\n'.join(
    [
      '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Runs</title>',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f'<style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body>',
      *body,
      '<dialog><img alt=""></dialog>',
      f'<script>{SCRIPT}</script></body></html>\n',
    ]
  )


def _task(task: str, own: Sequence[Group], drawn: Drawn, anchors: interactive.Anchors) -> list[str]:
  """Returns the part of the page on one task, with its experiments."""
  part = [f'<h2 id="{tables.task_stem(task)}">{html.escape(task)}</h2>']
  part += _curve(task, own, anchors)
  for kind, head, rows in tables.task_tables(own):
    part += [f'<h3>{kind}</h3>', _table(head, [list(map(html.escape, row)) for row in rows])]
  return part + [_image(picture) for picture in drawn.pictures.get(task, ())]


def _search(stem: str, search: Search, drawn: Drawn) -> list[str]:
  """Returns the part of the page on one search."""
  part = [f'<h2 id="{stem}">{html.escape(search.title)}</h2>']
  part.append(f'<p>{html.escape(search.goals)}</p>')
  if search.rows:
    rows = [[html.escape(cell) for cell in row] for row in search.rows]
    part.append(_table(search.header, rows))
  return part + [_image(picture) for picture in drawn.pictures.get(stem, ())]


def _curve(task: str, groups: Sequence[Group], anchors: Mapping[pathlib.Path, str]) -> list[str]:
  """The curve of a task and its notes, or the reason why there is no curve."""
  config = {'responsive': True, 'displaylogo': False}
  try:
    drawn = interactive.pareto(task, groups, anchors)
    if drawn is None:
      return []
    text = plotly.io.to_html(drawn, config=config, full_html=False, include_plotlyjs=False)
    notes = pareto.notes(task, groups)
  except Exception as error:  # no error may keep the page of all the other runs from being made
    text = ''
    notes = [f'The curve cannot be drawn: {in_one_line(error)}']
  return [text, *(f'<p>{html.escape(note)}</p>' for note in notes)]


RUN = ('run', 'state', 'experiment', 'seed', 'epoch', 'active', 'validation', 'test')


def _runs(runs: Sequence[Run], anchors: Mapping[pathlib.Path, str], root: pathlib.Path) -> str:
  rows, ids = [], []
  settings = _settings(runs)
  for run in runs:
    path = urllib.parse.quote(os.fsencode(tables.relative(run.path, root)))
    found = [name for name in (files.SUMMARY, files.TRACE) if os.path.exists(run.path / name)]
    accuracies = [run.figure(f'{split}_accuracy') for split in ('validation', 'test')]
    if run.state not in DELIVERED:
      accuracies[1] = math.nan
    own = run.settings
    rows.append(
      [
        _link(f'{path}/', run.name),
        f'<span class="{run.state}">{run.state}</span>',
        html.escape(run.method),
        html.escape(str(own.get('seed', '-'))),
        f'{run.epoch:g}',
        percent(run.figure('active_fraction')),
        *map(percent, accuracies),
        *(html.escape(short_value(own[n])) if n in own else '-' for n in settings),
        ' '.join(_link(f'{path}/{name}', name) for name in found),
      ]
    )
    ids.append(anchors[run.path])
  return _table((*RUN, *settings.values(), 'files'), rows, ids)


def _settings(runs: Sequence[Run]) -> dict[str, str]:
  """Returns the settings that differ between runs of one task and method, with short names.

  Settings that differ between methods would fill a hundred columns; the methods' names stand for
  them.
  """
  families: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for run in runs:
    families.setdefault((run.task, run.method), []).append(hashed_settings(run.settings))
  varying = set()
  for family in families.values():
    for name in set().union(*family):
      if len({repr(settings.get(name)) for settings in family}) > 1:
        varying.add(name)
  shared = collections.Counter(map(short_name, varying))
  names = {name: short_name(name) for name in sorted(varying)}
  return {name: short if shared[short] == 1 else name for name, short in names.items()}


def _problems(
  runs: Sequence[Run],
  searches: Sequence[Search],
  drawn: Drawn,
  anchors: Mapping[pathlib.Path, str],
) -> str:
  wrong = tables.problems(runs, searches, drawn)
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
  """A table whose cells are already HTML."""
  lines = ['<div class="scroll"><table><thead><tr>']
  lines += [f'<th><button>{html.escape(name)}</button></th>' for name in head]
  lines.append('</tr></thead><tbody>')
  for index, row in enumerate(rows):
    anchor = f' id="{ids[index]}"' if ids else ''
    lines.append(f'<tr{anchor}>' + ''.join(map(_cell, row)) + '</tr>')
  return '\n'.join([*lines, '</tbody></table></div>'])


def _cell(content: str) -> str:
  is_long = len(re.sub('<[^>]*>', '', content)) > LONG
  return f'<td class="long">{content}</td>' if is_long else f'<td>{content}</td>'


def _image(picture: Picture) -> str:
  """A picture that a click opens; if it is wider than the text, it takes the window's width."""
  with Image.open(io.BytesIO(picture.png)) as image:
    width, height = image.size
  what = html.escape(picture.name.replace('_', ' ').replace('.', ': '))
  look = 'picture wide' if width > WIDE else 'picture'
  source = f'data:image/png;base64,{base64.b64encode(picture.png).decode()}'
  size = f'width="{width}" height="{height}"'
  return f'<button class="{look}"><img alt="{what}" {size} src="{source}"></button>'
