"""trace.png: a picture of the right size whatever the metrics hold, or none."""

import math
import os
import sys

import numpy as np
import pytest
from PIL import Image

from sparsejax.experiment.show import trace, trace_marks, trace_panels


def line(step, **metrics):
  return {'step': step, 'examples': 100 * step, 'epoch': step / 10, **metrics}


def full(lines=30):
  """A run with every metric, of 10 steps a line, cut in its middle."""
  found = []
  for n in range(1, lines + 1):
    active = 1.0 if n <= lines // 2 else 0.05
    metrics = {'train_loss': 2 / n, 'train_accuracy': 1 - 1 / (n + 1), 'learning_rate': 0.1 / n}
    if n % 5 == 0:
      metrics |= {'validation_loss': 3 / n, 'validation_accuracy': 1 - 2 / n}
    metrics |= {'active_fraction': active, 'below_1e-3': 1 - active / 2}
    metrics |= {'below_threshold': 1 - active / 4}
    found.append(line(10 * n, **metrics))
  return found


def draw(tmp_path, metrics, **options):
  """Draws, checks that the picture is whole and alone in its folder, and returns it."""
  path = tmp_path / 'trace.png'
  assert trace.plot_trace(metrics, path, title='a run', **options)
  assert os.listdir(tmp_path) == ['trace.png']
  with Image.open(path) as image:
    image.load()
    picture = np.asarray(image.convert('RGB'))
  assert (picture[:, :3] == 255).all(), 'the name of a panel is cut off'
  return picture


def has(picture, color):
  """How many dots within the outermost axes are of exactly this colour, as labels outside are too.

  Between two panels lies an axis, which is black.
  """
  top, bottom, left, right = (
    round(trace.DPI * inches) for inches in (trace.TOP, trace.BOTTOM, trace.LEFT, trace.RIGHT)
  )
  inside = picture[top + 3 : -bottom - 3, left + 3 : -right]
  wanted = [int(color[n : n + 2], 16) for n in (1, 3, 5)]
  return int((inside == wanted).all(-1).sum())


def test_a_full_run_draws_every_line(tmp_path):
  phases = {'dense': {'step': 150}, 'pruned': {'step': 150, 'validation_accuracy': 0.1}}
  picture = draw(tmp_path, full(), prune_steps=[150], summary={'best_step': 300, 'phases': phases})
  assert picture.shape == (1026, 1200, 3)
  colors = (
    trace_panels.BLUE,
    trace_panels.VERMILLION,
    trace_panels.GREEN,
    trace_panels.PURPLE,
    '#F0E442',
  )
  for color in colors:
    assert has(picture, color) > 20, color


def test_the_same_metrics_draw_the_same_bytes(tmp_path):
  for name in ('a.png', 'b.png'):
    trace.plot_trace(full(), tmp_path / name, title='a run')
  assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()


def test_empty_panels_are_left_out(tmp_path):
  dense = [line(step, active_fraction=1.0) for step in (1, 2, 3)]
  picture = draw(tmp_path, dense)
  panel = next(panel for panel in trace_panels.PANELS if panel.name == 'active fraction')
  height = trace.DPI * (trace.TOP + panel.height + trace.BOTTOM)
  assert picture.shape == (pytest.approx(height, abs=1), 1200, 3)


@pytest.mark.parametrize(
  'metrics',
  [
    [],
    [{}],
    [line(1)],
    [line(1, train_loss=math.nan, validation_loss=None, train_accuracy='?')],
    [{'train_loss': 0.5}],  # nowhere to put it
  ],
)
def test_nothing_to_draw_writes_nothing(tmp_path, metrics):
  assert not trace.plot_trace(
    metrics, tmp_path / 'trace.png', title='a run', summary={'best_step': 1}
  )
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  'metrics',
  [
    [line(0, train_loss=2.3, train_accuracy=0.1, active_fraction=1.0)],
    [line(5, train_loss=0.0, train_accuracy=1.0, learning_rate=0.0, active_fraction=0.0)],
    [line(5, train_loss=math.inf), line(6, train_loss=2.0), line(7, train_loss=math.nan)],
    [line(5, train_loss=-1.0, validation_accuracy=0.0), line(6, train_loss=1e-9)],
    [line(5, active_fraction=1.0), line(6, active_fraction=0.0), line(7, active_fraction=1e-6)],
    [{'step': 5, 'train_loss': 1.0}, {'step': 6, 'train_loss': 0.5}],  # neither examples nor epoch
    [{'examples': 5, 'train_loss': 1.0}, {'examples': 6, 'train_loss': 0.5}],  # no step
  ],
)
def test_odd_metrics_are_drawn(tmp_path, metrics):
  phases = {'pruned': {'step': 6, 'validation_accuracy': math.nan}, 'retrained': None}
  picture = draw(tmp_path, metrics, prune_steps=[6], summary={'best_step': 6, 'phases': phases})
  has_loss = any('train_loss' in line for line in metrics)
  assert has(picture, trace_panels.BLUE if has_loss else trace_panels.BLACK) > 10


@pytest.mark.parametrize(
  ('before', 'is_pretrained', 'key'),
  [
    ((5, 100), False, ['pruning, 2 cuts at epoch 0.5', 'just after the cut, 90.00 %']),
    ((0, 100), False, ['masks, 2 renewals at epoch 0.5', 'at the last mask, 90.00 %']),
    ((0, 100), True, ['pruning, 2 cuts at epoch 0.5', 'just after the cut, 90.00 %']),
    ((5, 10), False, ['masks, 2 renewals at epoch 0.5', 'at the last mask, 90.00 %']),
  ],
)
def test_the_key_speaks_of_a_cut_only_where_there_was_one(before, is_pretrained, key):
  rows = [{'step': step, 'active_weights': active} for step, active in (before, (5, 10))]
  phases = {'dense': rows[0], 'pruned': rows[1] | {'validation_accuracy': 0.9}}
  summary = {'phases': phases, 'is_pretrained': is_pretrained}
  points = list(trace_marks.find_points([], float, summary))
  entries = trace_marks.key_entries([5, 5], points, 10, summary)
  assert [text for _, text in entries] == key


@pytest.mark.parametrize('panel', trace_panels.PANELS, ids=lambda panel: panel.name)
def test_a_panel_draws_with_any_of_its_lines_missing(tmp_path, panel):
  for kept in panel.lines:
    keys = ('step', 'examples', kept.key)
    picture = draw(tmp_path, [{key: row[key] for key in keys if key in row} for row in full()])
    assert has(picture, kept.color) > 100, kept.key


def test_a_long_run_and_many_cuts(tmp_path):
  picture = draw(
    tmp_path, full(2000), prune_steps=range(1000, 9000, 100), summary={'best_step': 10}
  )
  assert picture.shape == (1026, 1200, 3)


def test_the_title_may_hold_anything(tmp_path):
  draw(tmp_path, full(3), summary={'best_step': 10})
  assert trace.plot_trace(full(3), tmp_path / 'b.png', title=r'$\frac{ 100 % _^')


def test_a_step_finds_its_place_among_the_examples():
  metrics = [{'step': 10, 'examples': 1000}, {'step': 20, 'examples': 3000}]
  x, label, to_x = trace._examples(metrics)
  assert x.tolist() == [1000, 3000]
  assert label == 'examples seen'
  assert [to_x(step) for step in (0, 5, 15, 20, 40)] == [0, 500, 2000, 3000, 6000]


def test_the_old_picture_stays_when_drawing_fails(tmp_path, monkeypatch):
  from matplotlib.figure import Figure

  draw(tmp_path, full(3))
  before = (tmp_path / 'trace.png').read_bytes()

  def fail(self, path, **_):
    path.write_bytes(b'half')
    raise OSError('no space')

  monkeypatch.setattr(Figure, 'savefig', fail)
  with pytest.raises(OSError, match='no space'):
    trace.plot_trace(full(), tmp_path / 'trace.png', title='a run')
  assert os.listdir(tmp_path) == ['trace.png']
  assert (tmp_path / 'trace.png').read_bytes() == before


def test_no_global_state_is_touched(tmp_path, monkeypatch):
  monkeypatch.delitem(sys.modules, 'matplotlib.pyplot', raising=False)
  draw(tmp_path, full(3))
  assert 'matplotlib.pyplot' not in sys.modules


def test_a_variational_run_has_panels_for_its_kl_and_others_do_not():
  lines = [
    {'step': step, 'examples': step, 'train_loss': 1.0, 'kl': 3.0, 'kl/fc1': 2.0, 'kl/fc2': 1.0}
    for step in range(1, 4)
  ]
  names = [panel.name for panel in trace_panels.run_panels(lines)]
  assert names[-3:] == ['nats an example', 'KL, nats', 'at their bounds']
  assert [line.label for line in trace_panels.run_panels(lines)[-2].lines] == [
    'total',
    'fc1',
    'fc2',
  ]
  assert trace_panels.run_panels([{'step': 1}]) == trace_panels.PANELS
