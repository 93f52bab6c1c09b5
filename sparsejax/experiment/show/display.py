"""The output of a run: its settings, its progress, its result.

On a terminal it consists of rich's tables and a progress bar; in a file, a pipe or a batch system's
log it is plain aligned text.
"""

import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from sparsejax.experiment.config.identity import flatten
from sparsejax.experiment.show import phases
from sparsejax.experiment.terminal.console import make_console, open_stream, print_blocks, wrapped
from sparsejax.experiment.terminal.numbers import MISSING, count, duration, number, percent, times
from sparsejax.experiment.terminal.say import printable, say
from sparsejax.posterior import precision


def _loss(value: float) -> str:
  return f'{value:.3f}' if not 0 < abs(value) < 0.01 else f'{value:.2e}'


def _active(value: float) -> str:
  return f'{value:.4f}' if not 0 < value < 0.01 else f'{value:.3g}'


def _rate(value: float) -> str:
  return f'{value:,.0f}' if value >= 10 else f'{value:.1f}'


# The settings.

MARGIN = 10  # columns of a terminal that a table of three columns needs besides its cells


def _text(value: Any) -> str:
  """Returns a setting as text; an array is shown only by its shape and dtype."""
  if getattr(value, 'shape', None):
    return f'array {tuple(value.shape)} {value.dtype}'
  return str(value) if str(value) else "''"


def _settings(config, defaults):
  """(name, value, default) of every setting, changed ones first; only these have a default."""
  values = {name: _text(value) for name, value in flatten(config).items()}
  usual = {n: _text(value) for n, value in flatten(defaults).items()} if defaults else values
  rows = [(name, text, usual.get(name, MISSING)) for name, text in values.items()]
  rows = [(name, text, '' if text == default else default) for name, text, default in rows]
  return sorted(rows, key=lambda row: not row[2])


def settings_table(config, defaults=None, stream: TextIO | None = None) -> None:
  """Prints the resolved settings, those that differ from the defaults first.

  Args:
    config: a nested mapping.
    defaults: a nested mapping of the defaults; a setting that differs is marked with a star.
    stream: the stream to print to, by default stdout. A terminal gets a table, a file gets lines
      `name = value`.

  Example:
    >>> import io
    >>> stream = io.StringIO()
    >>> settings_table({'seed': 0, 'epochs': 180}, {'seed': 0, 'epochs': 100}, stream)
    >>> print(stream.getvalue(), end='')
    * epochs = 180  (default 100)
      seed   = 0
  """
  rows = [tuple(map(printable, row)) for row in _settings(config, defaults)]
  quiet, terminal = open_stream(stream)
  room = make_console(quiet, terminal).width
  longest = [max(map(len, column), default=0) for column in zip(*rows, strict=True)]
  if terminal and sum(longest) + MARGIN <= room:
    rows = [(f'{"*" if row[2] else " "} {row[0]}', *row[1:]) for row in rows]
    print_blocks(stream, [('Settings', ('setting', 'value', 'default'), rows, 'left')])
    return
  width = longest[0] if rows and not terminal else 0
  lines = [
    f'{"*" if default else " "} {name:<{width}} = {text}' + f'  (default {default})' * bool(default)
    for name, text, default in rows
  ]
  broken = [part for line in lines for part in wrapped(line, room)]
  print_blocks(stream, broken if terminal else lines)


# The progress.


def time_left(metrics: Mapping, total_steps: int) -> float | None:
  """Returns the estimated number of seconds until the run ends, at its logged rate.

  Args:
    metrics: a line of metrics with `step` and `examples`, both counted from the start of the run,
      and `examples_per_second`.
    total_steps: the number of steps of the whole run.

  Returns:
    The seconds, 0.0 after the last step; None if one of the three metrics is missing or zero.

  Example:
    >>> time_left({'step': 10, 'examples': 1000, 'examples_per_second': 50.0}, 40)
    60.0
  """
  step, examples, rate = (
    number(metrics.get(key)) for key in ('step', 'examples', 'examples_per_second')
  )
  if not step or not examples or not rate:
    return None
  return max(total_steps - step, 0) * (examples / step) / rate


# A metric's name, a template for its text, and the function that formats its number.
Field = tuple[str, str, Callable[[float], str]]

FIELDS: tuple[Field, ...] = (
  ('epoch', 'epoch {}', '{:.1f}'.format),
  ('train_loss', 'loss {}', _loss),
  ('train_accuracy', 'accuracy {}', '{:.3f}'.format),
  ('validation_loss', 'validation loss {}', _loss),
  ('validation_accuracy', 'validation accuracy {}', '{:.3f}'.format),
  ('active_fraction', 'active {}', _active),
  ('examples_per_second', '{} examples/s', _rate),
)
BAR_FIELDS: tuple[Field, ...] = (  # shorter words, so that most of them fit beside the bar
  *FIELDS[:3],
  ('validation_accuracy', 'validation {}', '{:.3f}'.format),
  ('active_fraction', 'active {}', _active),
  ('examples_per_second', '{}/s', _rate),
)


def format_metrics(metrics: Mapping[str, Any], fields: Sequence[Field] = FIELDS) -> list[str]:
  """Returns the metrics of one log record as short strings, in the order of `fields`.

  Args:
    metrics: {name: value}, one line of metrics.jsonl. Metrics that are missing or not numbers are
      left out, and so are those that no field names.
    fields: which metrics to write, in this order, and how.

  Example:
    >>> format_metrics({'epoch': 3.84, 'train_loss': 0.4117, 'active_fraction': 1.0})
    ['epoch 3.8', 'loss 0.412', 'active 1.0000']
  """
  texts = []
  for key, template, format_number in fields:
    value = number(metrics.get(key))
    if value is not None:
      texts.append(template.format(format_number(value)))
  return texts


def _time_left_text(metrics: Mapping[str, Any], total_steps: int) -> list[str]:
  """Returns ['left H:MM:SS'], or [] if the time left is not known."""
  left = duration(time_left(metrics, total_steps))
  return [] if left == MISSING else [f'left {left}']


BAR_COLUMNS = 21  # of a terminal, for the bar and its percentage
SEPARATOR = '  '


def join_within(parts: Sequence[str], max_columns: int) -> str:
  """Joins as many of the leading texts as fit in a width, with two spaces between them.

  The first text that does not fit is left out with all that follow it; none is truncated.

  Example:
    >>> join_within(['left 0:12:10', 'epoch 3.8', 'loss 0.412'], 25)
    'left 0:12:10  epoch 3.8'
  """
  ends = itertools.accumulate(len(part) + len(SEPARATOR) for part in parts)  # each with its gap
  fitting = itertools.takewhile(
    lambda pair: pair[1] - len(SEPARATOR) <= max_columns, zip(parts, ends, strict=True)
  )
  return SEPARATOR.join(printable(part) for part, _ in fitting)


class Progress:
  """Shows how far a run has come: with a bar on a terminal, else with a line for each logged line.

  Example:
    >>> import io
    >>> with Progress(100, io.StringIO()) as progress:
    ...   progress.update(10, train_loss=0.5)
    ...   progress.line({'step': 20, 'epoch': 1.0, 'train_loss': 0.25})
    ...   print(progress.stream.getvalue(), end='')
    step 20/100  epoch 1.0  loss 0.250
  """

  def __init__(self, total_steps: int, stream: TextIO | None = None):
    """Takes the steps of the whole run, and the stream to print to (by default stdout)."""
    self.total_steps = total_steps
    self.stream = sys.stdout if stream is None else stream
    self._quiet, terminal = open_stream(self.stream)
    self._bar = self._make_bar() if terminal else None
    self._latest = {}

  def _make_bar(self):
    text = Column(no_wrap=True, overflow='ellipsis')
    columns = [
      BarColumn(bar_width=12, table_column=Column(min_width=12, no_wrap=True)),
      # All the text is one column, because rich shrinks every column on a narrow terminal.
      TextColumn('{task.percentage:>3.0f} %  {task.description}', markup=False, table_column=text),
    ]
    # Other output goes above the bar, but only if both go to the same place.
    shared = self.stream is sys.stdout
    redirect: dict[str, Any] = {
      'redirect_stdout': shared,
      'redirect_stderr': shared and sys.stderr.isatty(),
    }
    console = make_console(self._quiet, True)
    bar = RichProgress(*columns, console=console, refresh_per_second=4, **redirect)
    self._task = bar.add_task('', total=self.total_steps)
    return bar

  def __enter__(self):
    if self._bar:
      self._bar.start()
    return self

  def __exit__(self, *exception):
    if self._bar:
      self._bar.stop()
    self._quiet.flush()

  def update(self, step: int, **values) -> None:
    """Moves the bar to a step and shows any new metrics; without a terminal prints nothing.

    Args:
      step: the steps done.
      **values: metrics by name.
    """
    self._latest.update(values, step=step)
    if self._bar:
      parts = _time_left_text(self._latest, self.total_steps)
      parts += format_metrics(self._latest, BAR_FIELDS)
      text = join_within(parts, self._bar.console.width - BAR_COLUMNS)
      self._bar.update(self._task, completed=step, description=text)

  def line(self, metrics: Mapping) -> None:
    """Shows a logged line of metrics, in the bar on a terminal, else as its own line.

    Args:
      metrics: the line, with its `step`.
    """
    if self._bar:
      self.update(**{'step': self._latest.get('step', 0), **metrics})
      return
    head = [f'step {metrics["step"]}/{self.total_steps}'] if 'step' in metrics else []
    parts = head + format_metrics(metrics) + _time_left_text(metrics, self.total_steps)
    say('  '.join(parts), self.stream)


# The result.

PHASE_COLUMNS = (
  ('step', 'step', count),
  ('validation_accuracy', 'validation accuracy', percent),
  ('active_weights', 'active weights', count),
  ('active_parameters', 'active parameters', count),
  ('compression', 'compression', times),
  ('theoretical_speedup', 'theoretical speed-up', times),
)
LAYER_COLUMNS = (
  ('weights', 'weights', count),
  ('active_weights', 'active', count),
  ('active_share', 'active share', percent),
  ('units', 'units', count),
  ('active_units', 'active units', count),
  ('bits', 'bits', count),
)


def _ratio(row, part, whole):
  part, whole = number(row.get(part)), number(row.get(whole))
  return None if part is None or not whole else part / whole


def _rows(first, named, columns):
  """The (header, rows) of (name, mapping) pairs, without the columns that no pair has."""
  columns = [column for column in columns if any(column[0] in row for _, row in named)]
  header = (first, *(title for _, title, _ in columns))
  return header, [
    (name, *(write(row.get(key)) for key, _, write in columns)) for name, row in named
  ]


def _layers(layers):
  """(name, row) of each layer, from a mapping by name or a list of rows with names."""
  if isinstance(layers, Mapping):
    named = list(layers.items())
  else:
    named = [(row.get('name', row.get('layer', n)), row) for n, row in enumerate(layers)]
  shares = [_ratio(row, 'active_weights', 'weights') for _, row in named]
  return [
    (str(name), {**row, 'active_share': share})
    for (name, row), share in zip(named, shares, strict=True)
  ]


def _result_line(summary):
  """One line with the figures of the network that the summary describes."""
  accuracy = number(summary.get('test_accuracy'))
  share = percent(_ratio(summary, 'active_weights', 'weights'))
  parts = [
    f'test accuracy {percent(accuracy)}',
    f'test error {percent(None if accuracy is None else 1 - accuracy)}',
    f'active weights {count(summary.get("active_weights"))} / {count(summary.get("weights"))}'
    f' ({share})',
    f'compression {times(summary.get("compression"))}',
    f'theoretical speed-up {times(summary.get("theoretical_speedup"))}',
    f'{count(summary.get("seconds"))} seconds',
  ]
  return ', '.join(parts)


def _posterior_line(summary):
  """One line with a variational network's units, bit widths, and the error at these widths."""
  units = '-'.join(str(n) for n in summary['architecture'])
  widths = '-'.join(str(n) for n in summary['bits'].values())
  error = percent(1 - summary['test_accuracy_with_bits'])
  ratio = times(summary['compression_with_bits'])
  line = f'architecture {units}; with {widths} bits {ratio} ({precision.LEFT_OUT})'
  line += f' at {error} test error'
  if 'deployed_from' in summary:
    line += f'; deployed from the posterior of {summary["deployed_from"]}, without training'
  return line


def final_table(summary: Mapping, stream: TextIO | None = None) -> None:
  """Prints the result of a run: its layers, its phases, and the final figures in one line.

  Args:
    summary: the content of summary.json; missing figures are left out or shown as a dash.
    stream: the stream to print to, by default stdout.
  """
  blocks = []
  summary = _restore_infinities(summary)
  if summary.get('layers'):
    blocks += [('Layers', *_rows('layer', _layers(summary['layers']), LAYER_COLUMNS)), '']
  if summary.get('phases'):
    reason = phases.no_cut_reason(summary).strip('-')
    blocks += [('Phases', *_rows('phase', phases.named_phases(summary), PHASE_COLUMNS))]
    blocks += [f'cut: {reason}', ''] if reason else ['']
  if 'architecture' in summary:
    blocks += [_posterior_line(summary)]
  blocks += _dead_layers(_layers(summary.get('layers', {})))
  print_blocks(stream, [*blocks, _result_line(summary)])


INFINITE = ('compression', 'theoretical_speedup', 'compression_with_bits')


def _restore_infinities(figures: Any) -> Any:
  """Returns the figures with infinity for null, its form in JSON when no weight is left."""
  if not isinstance(figures, Mapping):
    return figures
  return {
    key: math.inf if value is None and key in INFINITE else _restore_infinities(value)
    for key, value in figures.items()
  }


def _dead_layers(layers: list[tuple[str, Mapping]]) -> list[str]:
  """A list of one line that names the layers without a weight left; empty if there are none."""
  dead = [path for path, row in layers if row.get('active_weights') == 0]
  if not dead:
    return []
  return [f'nothing is left of {", ".join(dead)}']
