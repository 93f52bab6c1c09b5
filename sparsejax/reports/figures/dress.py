"""The look and the files of a report's figures.

The colours suit colour-blind people, the marks and lines suit print, and the sizes and formats suit
papers.
"""

import io
import itertools
import math
import pathlib
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator

from sparsejax.reports.text.drawn import Picture

# Okabe and Ito's palette without the yellow, which is unreadable on white, and three of Paul Tol's
# colours that are darker than their nearest neighbours.
COLOURS = (
  *('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000'),
  *('#882255', '#999933', '#332288'),
)
MARKERS = ('o', 's', '^', 'D', 'v', 'P', 'X', '<', '>')
LINES = ('-', '--', '-.', ':')
GREY = '#6B6B6B'
DPI = 130
PRINT_DPI = 300
# In a legend: the size of a character and its width, both in points, and the width of a handle in
# characters.
LEGEND, LETTER, HANDLE = 7, 4.3, 9
TITLE, TITLE_SIZE = 'title', 10
SMALLEST, SMALLEST_LEGEND = 0.7, 0.8  # the smallest text, as shares of its usual size
LEAST_HEIGHT, LEAST_TICKS = 0.4, 3  # the least height of an axis in inches, the fewest ticks on it
LONGEST_NAME = 40  # characters of a layer's name


class Look(NamedTuple):
  """The size and the formats of figures.

  Attributes:
    size: width and height in inches; None makes each figure as large as its content needs.
    formats: the formats of the files: png, svg, pdf.
  """

  size: tuple[float, float] | None = None
  formats: Sequence[str] = ('png', 'svg')


FORMATS = ('png', 'svg', 'pdf')
# The same figure must give the same bytes, and its text must stay text.
NO_DATE: dict[str, dict[str, Any]] = {
  'png': {},
  'svg': {'metadata': {'Date': None}},
  'pdf': {'metadata': {'CreationDate': None}},
}
AS_TEXT: Any = {'svg.hashsalt': 'sparsejax', 'svg.fonttype': 'none', 'pdf.fonttype': 42}


def save(figure: Figure, folder: pathlib.Path, name: str, look: Look = Look()) -> Picture:
  """Writes a figure as NAME.png and so on, with the same bytes each time; returns its picture.

  Raises:
    ValueError: the size leaves no room for the figure.
  """
  from matplotlib import rc_context

  FigureCanvasAgg(figure)
  with warnings.catch_warnings(), io.BytesIO() as picture:
    warnings.filterwarnings('ignore', 'Glyph .* missing')
    warnings.filterwarnings('error', 'constrained_layout not applied')
    try:
      if look.size is not None:
        fit(figure, look.size)
      figure.savefig(picture, format='png', dpi=DPI if look.size is None else PRINT_DPI)
    except UserWarning as error:
      raise _no_room(figure) from error
    figure.set_layout_engine('none')  # a second layout would take as long as the drawing
    drawn = Picture(name, [f'{name}.{ending}' for ending in look.formats], picture.getvalue())
    with rc_context(AS_TEXT):
      for file, ending in zip(drawn.files, look.formats, strict=True):
        if ending == 'png':
          (folder / file).write_bytes(drawn.png)
        else:
          figure.savefig(folder / file, **NO_DATE[ending])
  return drawn


def fit(figure: Figure, size: tuple[float, float]) -> None:
  """Gives a figure a size in inches; if that is narrower, text and marks shrink and lines break.

  Raises:
    ValueError: an axis or its labels have no room.
  """
  scale = min(1.0, max(size[0] / figure.get_figwidth(), SMALLEST))
  figure.set_size_inches(*size)
  for text in (part for part in figure.findobj(Text) if isinstance(part, Text)):
    points = float(text.get_fontsize()) * scale
    text.set_fontsize(points)
    if text.get_label() == TITLE:
      text.set_text(_filled(text.get_text(), size[0], points))
  for line in (part for part in figure.findobj(Line2D) if isinstance(part, Line2D)):
    line.set(linewidth=line.get_linewidth() * scale, markersize=line.get_markersize() * scale)
  for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
    for label in axis.get_ticklabels()[:1]:
      axis.set_tick_params(labelsize=label.get_fontsize())
  for old in list(figure.legends):
    labels = [' '.join(text.get_text().split()) for text in old.get_texts()]
    old.remove()
    notes = old.get_title().get_text().splitlines()
    _put_legend(figure, old.legend_handles, labels, notes, LEGEND * max(scale, SMALLEST_LEGEND))
  _make_room(figure)


def _make_room(figure: Figure) -> None:
  """Breaks titles and axis names that are longer than the axes, and drops ticks that touch."""
  figure.draw_without_rendering()
  for ax in (ax for ax in figure.axes if ax.axison):
    if ax.get_window_extent().height < LEAST_HEIGHT * figure.dpi:
      raise _no_room(figure)
    _break(ax.yaxis.label, 1, ax.get_window_extent().height)
    for axis, index in ((ax.xaxis, 0), (ax.yaxis, 1)):
      while _touch(axis, index):
        ticks = list(axis.get_majorticklocs())
        if len(ticks) <= LEAST_TICKS:
          break
        axis.set_major_locator(FixedLocator(ticks[::2]))
  figure.draw_without_rendering()
  for ax in (ax for ax in figure.axes if ax.axison):
    box, label_box = ax.get_window_extent(), ax.yaxis.label.get_window_extent()
    if label_box.y0 < 0 or label_box.y1 > figure.bbox.height:
      raise _no_room(figure)
    middle = (box.x0 + box.x1) / 2
    if ax.title.get_label() == TITLE:
      _break(ax.title, 0, 2 * min(middle, figure.bbox.width - middle))


def _break(text: Text, index: int, room: float) -> None:
  """Breaks a text into as few lines as fit into a number of dots along x (0) or y (1)."""
  words = text.get_text()
  for letters in range(max(map(len, words.splitlines()), default=0) - 1, 8, -1):
    if text.get_window_extent().size[index] <= room:
      break
    text.set_text('\n'.join(textwrap.fill(line, letters) for line in words.splitlines()))


def _touch(axis: Axis, index: int) -> bool:
  """Returns whether the labels of two ticks of an axis overlap; index 0 is along x, 1 along y."""
  labels = [tick.label1 for tick in axis.get_major_ticks()]
  boxes = [t.get_window_extent() for t in labels if t.get_visible() and t.get_text()]
  ends = sorted((box.min[index], box.max[index]) for box in boxes)
  return any(high > low for (_, high), (low, _) in itertools.pairwise(ends))


def _no_room(figure: Figure) -> ValueError:
  size = 'x'.join(f'{length:g}' for length in figure.get_size_inches())
  return ValueError(
    f'{size} inches leave it no room; give a larger --size, or fewer --methods or --runs'
  )


def entitle(what: Axes | Figure, text: str) -> None:
  """Gives axes or a figure a title, with its lines broken so that they stay inside the figure."""
  figure = what if isinstance(what, Figure) else what.get_figure(root=True)
  assert figure is not None  # axes that are drawn here belong to a figure
  filled = _filled(text, figure.get_figwidth(), TITLE_SIZE)
  look: dict[str, Any] = {'fontsize': TITLE_SIZE, 'parse_math': False}
  is_whole = isinstance(what, Figure)
  title = what.suptitle(filled, **look) if is_whole else what.set_title(filled, **look)
  title.set_label(TITLE)


def _filled(text: str, inches: float, size: float) -> str:
  letters = max(int(inches * 72 / (0.6 * size)), 10)
  return '\n'.join(textwrap.fill(line, letters) for line in text.splitlines())


def short(name: str) -> str:
  """A name, cut short enough to stand beside others.

  Example:
    >>> short('conv1'), len(short('a' * 300))
    ('conv1', 40)
  """
  return name if len(name) <= LONGEST_NAME else f'{name[: LONGEST_NAME - 3]}...'


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
  """Returns a colour, a marker and a line for each name; the first 180 combinations differ.

  Neighbours differ in all three, for readers who do not see colours and for print without them.
  """
  looks = zip(*map(itertools.cycle, (COLOURS, MARKERS, LINES)), strict=False)
  return {
    name: {'color': colour, 'marker': marker, 'linestyle': line}
    for name, (colour, marker, line) in zip(names, looks, strict=False)
  }


def legend(figure: Figure, handles: Sequence[Artist], notes: Sequence[str] = ()) -> None:
  """Puts a legend under the axes, in as many columns as its labels leave room for.

  Args:
    figure: the figure, which grows by the legend.
    handles: handles with labels.
    notes: lines above the labels.
  """
  labels = [str(handle.get_label()) for handle in handles]
  lines = _put_legend(figure, handles, labels, notes, LEGEND)
  figure.set_figheight(figure.get_figheight() + 0.15 * math.ceil(lines))


def _put_legend(
  figure: Figure, handles: Sequence[Any], labels: Sequence[str], notes: Sequence[str], size: float
) -> float:
  """Puts a legend under the axes, in a font of `size` points; returns its number of lines."""
  letters = max(int(figure.get_figwidth() * 72 / (LETTER * size / LEGEND)), 2 * HANDLE)  # in a line
  labels = [textwrap.fill(label, letters - HANDLE) for label in labels]
  able = [n for n in range(2, min(len(labels), 4) + 1) if _width(labels, n) <= letters]
  columns = max(able, default=1)
  title = '\n'.join(textwrap.fill(note, letters) for note in notes)
  drawn = figure.legend(
    handles,
    labels,
    loc='outside lower center',
    ncols=columns,
    frameon=False,
    handlelength=3,
    **{'fontsize': size, 'title': title or None, 'title_fontsize': size},
  )
  for text in (drawn.get_title(), *drawn.get_texts()):
    text.set_parse_math(False)  # a label may have a dollar sign
  return sum(1 + label.count('\n') for label in labels) / columns + title.count('\n') + 1


def _width(labels: Sequence[str], columns: int) -> int:
  """The width in characters of a legend whose columns are filled one after the other."""
  parts = [part for part in np.array_split(np.array(labels, object), columns) if len(part)]
  return sum(
    max(len(line) for label in part for line in label.splitlines()) + HANDLE for part in parts
  )


def grid(ax) -> None:
  """Puts a pale grid under the drawing, and whole numbers on the axis of epochs."""
  ax.grid(lw=0.4, alpha=0.5)
  if ax.get_xscale() == 'linear' and ax.get_xlabel() == 'epoch':
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
