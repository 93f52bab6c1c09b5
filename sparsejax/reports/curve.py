"""The Pareto figure of a page, which answers the mouse: every run says what it is when asked."""

import html
import itertools
import math
import pathlib
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from sparsejax.experiment import scales
from sparsejax.experiment.numbers import percent
from sparsejax.experiment.scales import fraction_limits
from sparsejax.reports import published
from sparsejax.reports.collect import COLLAPSED, Run
from sparsejax.reports.figures import GREY, styles
from sparsejax.reports.groups import Group
from sparsejax.reports.pareto import best_dense, by_method, front, is_collapsed, spacing

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
LETTERS = 44  # in a line of a label: what a telephone has room for
# Under the plot, where it covers nothing however narrow the screen is.
LEGEND = {'orientation': 'h', 'yref': 'container', 'yanchor': 'bottom', 'y': 0, 'x': 0}


class Edges(NamedTuple):
  """Where things lie on the axes; what is left of them or below them lies on their edges.

  Attributes:
    spaced: the accuracies.
    left: the least fraction.
  """

  spaced: scales.Spacing
  left: float

  def x(self, fraction: float) -> float:
    return 100 * max(fraction, self.left)

  def y(self, accuracy: float) -> float:
    return float(self.spaced.forward(max(accuracy, self.spaced.low)))


def pareto(
  task: str, groups: Sequence[Group], anchors: Mapping[pathlib.Path, str]
) -> go.Figure | None:
  """Returns the curve with every run as a point that says what it is and leads to its row."""
  methods = by_method(groups)
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
  for method, style in styles(list(methods)).items():
    _add_method(drawn, method, methods[method], style, edges, anchors)
  for (source, points), symbol in zip(others.items(), itertools.cycle(PUBLISHED), strict=False):
    _add_published(drawn, source, points, symbol, edges)
  if (dense := best_dense(groups)) is not None:
    line, (mean, _) = {'dash': 'longdash', 'width': 1}, dense[0].moments('test_accuracy')
    text = f'{dense[1]}, {100 * mean:.2f} %'
    place = {'annotation_text': text, 'annotation_position': 'top left'}
    drawn.add_hline(y=edges.y(mean), line=line, **place)
  low, high = edges.y(edges.spaced.low), edges.y(edges.spaced.high)
  room = 0.03 * (high - low)  # for the marks on the edge
  steps = (1, 2, 5) if max(positive) / min(positive) < 300 else (1,)
  drawn.update_layout(
    template='plotly_white',
    height=440 + 21 * (len(methods) + len(others)),
    margin={'l': 60, 'r': 20, 't': 30, 'b': 50},
    legend=LEGEND,
    xaxis={
      'type': 'log',
      'title': 'active parameters, %',
      'range': [math.log10(100 * end) for end in fraction_limits(np.array(places))],
      'tickvals': [step * 10.0**power for power in range(-6, 3) for step in steps],
    },
    yaxis={
      'title': 'test accuracy, % (by the log of the error)',
      'range': [low - room, high + room],
      'tickvals': [edges.y(tick) for tick in edges.spaced.ticks],
      'ticktext': [f'{100 * tick:.6g}' for tick in edges.spaced.ticks],
    },
  )
  return drawn


def _add_method(
  drawn: go.Figure,
  method: str,
  own: Sequence[Group],
  style: Mapping[str, str],
  edges: Edges,
  anchors: Mapping[pathlib.Path, str],
) -> None:
  """Adds a method's means with their deviations, its front, and every seed as a small point."""
  look = {'color': style['color'], 'size': 9}
  fractions = [edges.x(g.moments('active_fraction')[0]) for g in own]
  means, spreads = np.array([g.moments('test_accuracy') for g in own]).T
  spreads = np.where(list(map(is_collapsed, own)), 0, np.nan_to_num(spreads))
  places, above, below = (
    np.array([edges.y(value) for value in values])
    for values in (means, means + spreads, means - spreads)
  )
  symbols = [_symbol(style, hollow=is_collapsed(group)) for group in own]
  drawn.add_scatter(
    x=fractions,
    y=places.tolist(),
    error_y={
      'type': 'data',
      'array': [length or None for length in (above - places).tolist()],
      'arrayminus': [length or None for length in (places - below).tolist()],
      'width': 3,
    },
    mode='markers',
    marker=look | {'symbol': symbols},
    name=_wrapped(method),
    legendgroup=method,
    text=[_of_mean(group) for group in own],
    hovertemplate='%{text}<extra></extra>',
    customdata=[anchors[group.counted[0].path] for group in own],
  )
  points = zip(fractions, places.tolist(), own, strict=True)
  best = front([(x, y) for x, y, group in points if not is_collapsed(group)])
  drawn.add_scatter(
    x=[x for x, _ in best],
    y=[y for _, y in best],
    mode='lines',
    line={'color': style['color'], 'width': 1, 'dash': DASHES[style['linestyle']]},
    legendgroup=method,
    showlegend=False,
    hoverinfo='skip',
  )
  each = [run for group in own for run in group.counted if len(group.counted) > 1]
  symbols = [_symbol(style, hollow=run.state == COLLAPSED) for run in each]
  drawn.add_scatter(
    x=[edges.x(run.figure('active_fraction')) for run in each],
    y=[edges.y(run.figure('test_accuracy')) for run in each],
    mode='markers',
    marker=look | {'symbol': symbols, 'size': 4, 'opacity': 0.6},
    legendgroup=method,
    showlegend=False,
    text=[_of_run(run) for run in each],
    hovertemplate='%{text}<extra></extra>',
    customdata=[anchors[run.path] for run in each],
  )


def _symbol(style: Mapping[str, str], *, hollow: bool) -> str:
  return SYMBOLS[style['marker']] + ('-open' if hollow else '')


def _add_published(drawn: go.Figure, source: str, points, symbol: str, edges: Edges) -> None:
  drawn.add_scatter(
    x=[edges.x(point.active_fraction) for point in points],
    y=[edges.y(point.accuracy) for point in points],
    mode='lines+markers',
    marker={'color': GREY, 'symbol': symbol, 'size': 9},
    line={'color': GREY, 'width': 1, 'dash': 'dot'},
    name=_wrapped(source),
    text=[_of_point(source, point) for point in points],
    hovertemplate='%{text}<extra></extra>',
  )


def _wrapped(text: str) -> str:
  """A text as HTML, in lines that a narrow screen has room for."""
  return '<br>'.join(map(html.escape, textwrap.wrap(text, LETTERS)))


def _of_point(source: str, point: published.Point) -> str:
  return (
    f'<b>{_wrapped(source)}</b><br>{100 * point.accuracy:.2f} %<br>'
    f'{percent(point.active_fraction)} of the weights active'
  )


def _of_mean(group: Group) -> str:
  accuracy, spread = group.moments('test_accuracy')
  around = f' ± {100 * spread:.2f}' if math.isfinite(spread) else ''
  collapsed = sum(run.state == COLLAPSED for run in group.counted)
  n = f'n = {len(group.counted)}' + (f', {collapsed} collapsed' if collapsed else '')
  return (
    f'<b>{_wrapped(group.label)}</b><br>{100 * accuracy:.2f}{around} %, {n}'
    f'<br>{percent(group.moments("active_fraction")[0])} active'
  )


def _of_run(run: Run) -> str:
  return (
    f'<b>{_wrapped(run.name)}</b><br>{100 * run.figure("test_accuracy"):.2f} %<br>'
    f'{percent(run.figure("active_fraction"))} active'
  )
