"""The interactive Pareto figure of a page: each point says what it is when the mouse is on it."""

import html
import itertools
import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from sparsejax.experiment.show import scales
from sparsejax.experiment.show.scales import fraction_limits
from sparsejax.experiment.terminal.numbers import percent
from sparsejax.reports.figures import published
from sparsejax.reports.figures.dress import GREY, styles
from sparsejax.reports.figures.pareto import (
  MANY,
  best_dense,
  coloured_methods,
  front,
  group_by_method,
  is_collapsed,
  spacing,
)
from sparsejax.reports.records.collect import COLLAPSED, Run
from sparsejax.reports.records.run_groups import Group
from sparsejax.reports.text import cells

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
DASHES = {'-': 'solid', '--': 'dash', '-.': 'dashdot', ':': 'dot'}
PUBLISHED = ('star-open', 'hexagon-open', 'pentagon-open', 'diamond-tall-open', 'octagon-open')
OTHERS = {'color': GREY, 'marker': 'o'}
Style = Mapping[str, str]
Anchors = Mapping[pathlib.Path, str]
LETTERS = 44  # characters in a line of a label, as many as a telephone has room for
# The legend stands under the plot, where it covers nothing, however narrow the screen is.
LEGEND = {'orientation': 'h', 'yref': 'container', 'yanchor': 'bottom', 'y': 0, 'x': 0}


class Edges(NamedTuple):
  """Positions on the axes; anything to the left of them or below them is put on their edge.

  Attributes:
    spaced: the spacing of the accuracies.
    left: the least fraction.
  """

  spaced: scales.Spacing
  left: float

  def x(self, fraction: float) -> float:
    return 100 * max(fraction, self.left)

  def y(self, accuracy: float) -> float:
    return float(self.spaced.forward(max(accuracy, self.spaced.low)))


def pareto(task: str, groups: Sequence[Group], anchors: Anchors) -> go.Figure | None:
  """Returns the curve, with every run as a point that says what it is and links to its row.

  It is None if there is no sparse network with a test accuracy.
  """
  methods = group_by_method(groups)
  if not methods:
    return None
  others = published.points(task)
  fractions = [
    run.figure('active_fraction') for own in methods.values() for g in own for run in g.counted
  ]
  fractions += [point.active_fraction for points in others.values() for point in points]
  positive = [fraction for fraction in fractions if fraction > 0] or [1.0]
  edges = Edges(spacing(groups, others), min(positive) / 1.5)
  places = [*positive, *([edges.left] if min(fractions) <= 0 else [])]
  drawn = go.Figure()
  for (source, points), symbol in zip(others.items(), itertools.cycle(PUBLISHED), strict=False):
    _add_published(drawn, source, points, symbol, edges)
  looks = styles(coloured_methods(methods))
  if rest := [g for method, own in methods.items() if method not in looks for g in own]:
    count = len(methods) - len(looks)
    marks = {'name': f'{count} other methods', 'marker': {'color': GREY, 'size': 4, 'opacity': 0.5}}
    # In the legend it stands between the methods and the published points.
    drawn.add_scatter(**_means(rest, OTHERS, edges, anchors) | marks, legendrank=1000.5)
  for part in (_seeds, _front, _means):  # the part added last lies on top
    for method, style in looks.items():
      drawn.add_scatter(**part(methods[method], style, edges, anchors), legendgroup=method)
  if (dense := best_dense(groups)) is not None:
    line = {'dash': 'longdash', 'width': 1}
    mean, _ = dense[0].moments('test_accuracy')
    text = f'{dense[1]}, {100 * mean:.2f} %'
    place = {'annotation_text': text, 'annotation_position': 'top left'}
    drawn.add_hline(y=edges.y(mean), line=line, **place)
  steps = (1, 2, 5) if max(positive) / min(positive) < 300 else (1,)
  drawn.update_layout(
    template='plotly_white',
    height=440 + 21 * (len(looks) + len(others) + 1),
    margin={'l': 60, 'r': 20, 't': 30, 'b': 50},
    legend=LEGEND,
    xaxis={
      'type': 'log',
      'title': 'active parameters, %',
      'range': [math.log10(100 * end) for end in fraction_limits(np.array(places))],
      'tickvals': [step * 10.0**power for power in range(-6, 3) for step in steps],
    },
    yaxis=_accuracy_axis(edges),
  )
  return drawn


def _accuracy_axis(edges: Edges) -> dict[str, Any]:
  low, high = edges.y(edges.spaced.low), edges.y(edges.spaced.high)
  room = 0.03 * (high - low)  # room for the marks on the edge
  return {
    'title': f'test accuracy, % ({scales.BY_LOG})',
    'range': [low - room, high + room],
    'tickvals': [edges.y(tick) for tick in edges.spaced.ticks],
    'ticktext': [f'{100 * tick:.6g}' for tick in edges.spaced.ticks],
  }


def _seeds(own: Sequence[Group], style: Style, edges: Edges, anchors: Anchors) -> dict[str, Any]:
  """The runs of a method's experiments that have several, as small points."""
  each = [(group, run) for group in own for run in group.counted if len(group.counted) > 1]
  symbols = [_symbol(style, hollow=run.state == COLLAPSED) for _, run in each]
  return {
    'x': [edges.x(run.figure('active_fraction')) for _, run in each],
    'y': [edges.y(run.figure('test_accuracy')) for _, run in each],
    'mode': 'markers',
    'marker': {'color': style['color'], 'symbol': symbols, 'size': 4, 'opacity': 0.6},
    'showlegend': False,
    'text': [_run_text(group, run) for group, run in each],
    'hovertemplate': '%{text}<extra></extra>',
    'customdata': [anchors[run.path] for _, run in each],
  }


def _front(own: Sequence[Group], style: Style, edges: Edges, anchors: Anchors) -> dict[str, Any]:
  """The front of a method's experiments without a collapsed run."""
  del anchors
  best = front([_place(group, edges) for group in own if not is_collapsed(group)])
  return {
    'x': [x for x, _ in best],
    'y': [y for _, y in best],
    'mode': 'lines',
    'line': {'color': style['color'], 'width': 1, 'dash': DASHES[style['linestyle']]},
    'showlegend': False,
    'hoverinfo': 'skip',
  }


def _means(own: Sequence[Group], style: Style, edges: Edges, anchors: Anchors) -> dict[str, Any]:
  """A method's means, with bars for their deviations."""
  places = [_place(group, edges) for group in own]
  above, below = zip(*(_bar(group, edges) for group in own), strict=True)
  symbols = [_symbol(style, hollow=is_collapsed(group)) for group in own]
  is_many = len(own) > MANY
  bars = {'type': 'data', 'array': above, 'arrayminus': below, 'width': 3}
  return {
    'x': [x for x, _ in places],
    'y': [y for _, y in places],
    'error_y': {} if is_many else bars,
    'mode': 'markers',
    'marker': {'color': style['color'], 'symbol': symbols, 'size': 5 if is_many else 9},
    'name': _wrapped(own[0].method),
    'text': [_mean_text(group) for group in own],
    'hovertemplate': '%{text}<extra></extra>',
    'customdata': [anchors[group.counted[0].path] for group in own],
  }


def _place(group: Group, edges: Edges) -> tuple[float, float]:
  fraction, accuracy = (group.moments(key)[0] for key in ('active_fraction', 'test_accuracy'))
  return edges.x(fraction), edges.y(accuracy)


def _bar(group: Group, edges: Edges) -> tuple[float | None, float | None]:
  """Returns the lengths of a mean's bar upwards and downwards, each None if there is no bar."""
  mean, spread = group.moments('test_accuracy')
  if is_collapsed(group) or not spread > 0:
    return None, None
  return edges.y(mean + spread) - edges.y(mean), edges.y(mean) - edges.y(mean - spread)


def _symbol(style: Style, *, hollow: bool) -> str:
  return SYMBOLS[style['marker']] + ('-open' if hollow else '')


def _add_published(drawn: go.Figure, source: str, points, symbol: str, edges: Edges) -> None:
  drawn.add_scatter(
    x=[edges.x(point.active_fraction) for point in points],
    y=[edges.y(point.accuracy) for point in points],
    mode='lines+markers',
    marker={'color': GREY, 'symbol': symbol, 'size': 9},
    line={'color': GREY, 'width': 1, 'dash': 'dot'},
    name=_wrapped(source),
    legendrank=1001,  # after the methods', which have 1000
    text=[_point_text(source, point) for point in points],
    hovertemplate='%{text}<extra></extra>',
  )


def _wrapped(text: str) -> str:
  """A text as HTML, in lines that fit a narrow screen."""
  return '<br>'.join(map(html.escape, textwrap.wrap(text, LETTERS)))


def _point_text(source: str, point: published.Point) -> str:
  return (
    f'<b>{_wrapped(source)}</b><br>{100 * point.accuracy:.2f} %<br>'
    f'{percent(point.active_fraction)} of the weights active'
  )


def _mean_text(group: Group) -> str:
  accuracy = cells.format_percent([run.figure('test_accuracy') for run in group.counted])
  collapsed = sum(run.state == COLLAPSED for run in group.counted)
  n = f'n = {len(group.counted)}' + (f', {collapsed} collapsed' if collapsed else '')
  return (
    f'<b>{_wrapped(group.label)}</b><br>{accuracy} %, {n}'
    f'<br>{percent(group.moments("active_fraction")[0])} active'
  )


def _run_text(group: Group, run: Run) -> str:
  return (
    f'<b>{_wrapped(group.label)}</b><br>{_wrapped(run.name)}'
    f'<br>{percent(run.figure("test_accuracy"))}'
    f'<br>{percent(run.figure("active_fraction"))} active'
  )
