"""What the figures of a report show and say, by properties of what is drawn."""

import html
import itertools
import math
import pathlib
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from sparsejax.experiment.show import scales
from sparsejax.reports import page
from sparsejax.reports.figures import (
  dress,
  experiments,
  interactive,
  pareto,
  published,
  search_figures,
)
from sparsejax.reports.records import curves
from sparsejax.reports.records.collect import Run
from sparsejax.reports.records.run_groups import group
from sparsejax.reports.records.tried import tried
from sparsejax.search.plan.brackets import Rung

CLASSES = 10


def run(name, *, accuracy=0.9, active=0.1, method='pruning', seed=0, counts=None, **changes):
  """A run of lenet300 on a thousand images, finished unless its summary is {}."""
  config = {'hash': changes.pop('hash', name), 'method': method, 'seed': seed, 'epochs': 2.0}
  config |= {'data': {'name': 'some'}, 'model': {'name': 'lenet300'}, 'setting': name}
  layers = {'fc1': {'weights': 100, 'active_weights': 10, 'units': 20, 'active_units': 5}}
  layers |= {'fc2': {'weights': 50, 'active_weights': 5, 'units': CLASSES, 'active_units': CLASSES}}
  summary = {
    'epochs': 2.0,
    'validation_accuracy': accuracy,
    'test_accuracy': accuracy,
    'active_fraction': active,
    'weights': 150,
    'active_weights': int(150 * min(active, 1)),
    'layers': layers | (counts or {}),
  }
  metrics = [
    {'epoch': float(epoch), 'validation_accuracy': accuracy, 'active_fraction': active}
    for epoch in range(3)
  ]
  found = {'config': config, 'summary': summary, 'metrics': metrics} | changes
  found['metrics'] = curves.reduce_lines(found['metrics'])
  return Run(path=pathlib.Path(name), name=name, environment={}, problems=(), **found)


def tasks(task, runs):
  """The experiments of the runs, with a task that something is published of, or nothing."""
  return [found._replace(task=task) for found in group(runs)]


def bounds(figure):
  """Where the title, the axes and the legend of a figure lie."""
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  (legend,) = figure.legends
  drawn = [figure.axes[0].title, figure.axes[0].xaxis.label, legend]
  return [artist.get_window_extent(canvas.get_renderer()) for artist in drawn]


def test_nothing_around_the_pareto_figure_lies_over_anything_else():
  runs = [run(f'{n}', method=f'a method with a long name {n}', active=0.01 * n) for n in (1, 2, 3)]
  figure = pareto.pareto('lenet5 on mnist', tasks('lenet5 on mnist', runs))
  boxes = bounds(figure)
  assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
  whole = figure.bbox
  assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0 for box in boxes)


@pytest.mark.parametrize(
  ('low', 'high'),
  [
    *((0.1, 0.99), (0.9697, 0.9813), (0.9302, 0.9355), (0.61, 0.64), (0.985, 0.9999), (0.5, 0.5)),
    *((0.0, 1.0), (1.0, 1.0), (0.1, 0.1), (0.88, 0.985), (0.4871, 0.7061), (0.98, 0.98)),
  ],
)
def test_ticks_of_accuracy_are_round_three_or_more_and_embrace_the_data(low, high):
  spaced = scales.spacing(np.array([low, high]))
  assert len(spaced.ticks) >= 3
  assert spaced.ticks[0] <= low
  assert high <= spaced.ticks[-1]
  assert all(spaced.low <= tick <= spaced.high for tick in spaced.ticks)
  steps = np.diff(spaced.ticks)
  for tick in spaced.ticks:
    # No tick has more digits than the distance to its neighbour needs.
    digits = max(0, -math.floor(math.log10(100 * steps.min()) + 1e-9))
    assert 100 * tick == pytest.approx(round(100 * tick, digits), abs=1e-9)


def test_neighbouring_styles_differ_in_colour_marker_and_line():
  found = [tuple(style.values()) for style in dress.styles([str(n) for n in range(180)]).values()]
  assert len(set(found)) == 180
  for one, other in itertools.pairwise(found):
    assert all(a != b for a, b in zip(one, other, strict=True))
  assert len({colour for colour, _, _ in found[:10]}) == 10


def collapsed_and_sound():
  sound = [run(f's{n}', accuracy=accuracy, active=n / 10) for n, accuracy in ((2, 0.96), (3, 0.98))]
  return tasks('nothing', [*sound, run('gone', accuracy=0.1, active=0.05)])


def test_a_collapsed_run_is_hollow_on_no_front_and_does_not_stretch_the_axis():
  found = collapsed_and_sound()
  figure = pareto.pareto('nothing', found)
  (ax,) = figure.axes
  low = ax.get_ylim()[0]
  assert 0.9 < low < 0.96
  lines = {line.get_linestyle(): line for line in ax.lines if len(line.get_xdata()) > 1}
  assert lines['-'].get_xdata().tolist() == [0.2, 0.3]
  (hollow,) = [line for line in ax.lines if line.get_markerfacecolor() == 'white']
  assert hollow.get_xdata().tolist() == [0.05]
  assert hollow.get_ydata().tolist() == [low]
  text = figure.legends[0].get_title().get_text()
  assert 'has a collapsed run, and is on no front' in text
  assert '1 below the axis, at 10.0 %' in text


def test_the_lower_edge_says_between_which_accuracies_its_marks_are():
  found = tasks('nothing', [run('less', accuracy=0.08), run('more', accuracy=0.1), run('sound')])
  assert pareto.notes('nothing', found)[-1].endswith('2 below the axis, at 8.0 to 10.0 %')


def test_the_curve_of_the_page_shows_a_collapsed_run_in_the_same_way():
  found = collapsed_and_sound()
  drawn = interactive.pareto('nothing', found, {r.path: 'a' for g in found for r in g.runs})
  _, line, marks = drawn.data
  assert [symbol.endswith('-open') for symbol in marks.marker.symbol] == [False, False, True]
  assert list(line.x) == [20.0, 30.0]
  low, high = drawn.layout.yaxis.range
  assert all(low < y < high for y in marks.y)


def test_where_all_have_collapsed_the_axis_is_theirs():
  figure = pareto.pareto('nothing', tasks('nothing', [run('gone', accuracy=0.1)]))
  assert figure.axes[0].get_ylim()[0] < 0.1 < figure.axes[0].get_ylim()[1]


def test_a_published_network_that_guesses_does_not_stretch_the_axis():
  task = 'vgg16 on cifar10'
  figure = pareto.pareto(task, tasks(task, [run('a', accuracy=0.92)]))
  assert any(point.is_collapsed for point in published.points(task)['log of 2017'])
  assert figure.axes[0].get_ylim()[0] > 0.7


def test_a_title_speaks_of_deviations_where_there_are_some():
  alone = pareto.pareto('nothing', tasks('nothing', [run('a')]))
  assert alone.axes[0].get_title() == 'nothing\none seed each'
  seeds = [run('a', seed=seed)._replace(path=pathlib.Path(str(seed))) for seed in (0, 1)]
  twice = pareto.pareto('nothing', tasks('nothing', seeds))
  assert 'standard deviation' in twice.axes[0].get_title()


def words(figure):
  """Every text of a figure in one line each, wherever it was broken."""
  texts = [text.get_text() for ax in figure.axes for text in (ax.title, ax.yaxis.label)]
  texts += [band.get_suptitle() for band in (figure, *figure.subfigs)]
  for legend in figure.legends:
    texts += [text.get_text() for text in (legend.get_title(), *legend.get_texts())]
  return [' '.join(text.split()) for text in texts]


def test_labels_are_whole_however_long_they_are():
  begin = 'weight_decay 0.0001, learning_rate.factor 0.5, momentum 0.9, batch_size 32, ' * 2
  found = tasks('nothing', [run(f'{n}', active=n / 10) for n in (1, 2, 3)])
  found = [g._replace(label=f'{begin}end {n}') for n, g in enumerate(found)]
  bins = {'from': -8.0, 'to': 8.0, 'counts': [3, 0, 40], 'threshold': 2.0}
  bins['suggested_threshold'] = None
  for figure in (
    experiments.traces('nothing', found),
    experiments.layer_shares('nothing', found, 'weights'),
    experiments.layer_shares('nothing', found, 'units'),
    experiments.log_alpha({g.label: {'fc': bins} for g in found}),
  ):
    assert {g.label for g in found} <= set(words(figure))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.legends[0].get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_a_picture_shows_the_best_of_every_method_and_then_spreads():
  unfinished = {'summary': {}}
  runs = [run(f'a{n}', active=n / 100, accuracy=0.9 + n / 1000) for n in range(1, 30)]
  runs += [run('b', method='b', accuracy=0.5), run('b better', method='b', accuracy=0.6)]
  runs += [run('c', method='c', **unfinished), run('a30', active=0.0001, **unfinished)]
  runs.append(run('c finished', method='c', accuracy=0.3))
  found = tasks('nothing', runs)
  shown = experiments.chosen(found)
  names = [group.runs[0].name for group in shown]
  assert len(shown) == experiments.MOST
  assert {'a29', 'b better', 'c finished', 'a1'} <= set(names)
  assert 'a30' not in names
  fractions = [group.moments('active_fraction')[0] for group in shown]
  assert fractions == sorted(fractions)
  said = experiments.choice(shown, found)
  assert f'7 of {len(found)} experiments: the best of each method' in said
  assert 'spread' in said
  assert said in experiments.traces('nothing', found).axes[0].get_title()
  assert experiments.choice(found, found) == ''


def test_of_experiments_at_one_sparsity_a_picture_shows_the_best():
  fractions = (0.1001, 0.1002)  # counted by value, the same density differs by a few weights
  runs = [run(f'{n}', active=fractions[n % 2], accuracy=0.5 + n / 100) for n in range(12)]
  found = tasks('nothing', runs)
  shown = experiments.chosen(found)
  assert {group.runs[0].name for group in shown} == {
    f'{n}' for n in range(12 - experiments.MOST, 12)
  }
  assert experiments.choice(shown, found) == (
    '\n7 of 12 experiments: the best of each method, and the next best ones'
  )


def test_a_picture_of_more_methods_than_colours_says_so():
  found = tasks('nothing', [run(f'{n}', method=f'm{n}', accuracy=n / 100) for n in range(12, 30)])
  shown = experiments.chosen(found)
  assert [group.method for group in shown] == [f'm{n}' for n in range(29, 19, -1)]
  assert 'the best of 10 of 18 methods' in experiments.choice(shown, found)


def test_a_layer_without_a_weight_is_drawn_and_what_counts_none_is_named():
  none = {'fc1': {'weights': 100, 'active_weights': 0}, 'fc2': {'weights': 50, 'active_weights': 2}}
  found = tasks('nothing', [run('a'), run('b', active=0.01, counts=none)])
  weights = experiments.layer_shares('nothing', found, 'weights')
  (ax,) = weights.axes
  low = ax.get_ylim()[0]
  assert [line.get_ydata().min() for line in ax.lines] == [low, 0.1]
  assert 'on the lower edge: no weight left' in words(weights)
  units = experiments.layer_shares('nothing', found, 'units')
  assert '1 of 2 experiments do not count units and are left out' in words(units)


def test_histograms_say_what_they_count_and_of_which_task():
  bins = {'from': -8.0, 'to': 8.0, 'counts': [3, 0, 40]}
  bins |= {'threshold': 2.0, 'suggested_threshold': None}
  figure = experiments.log_alpha({'a': {'fc': bins}, 'b': {'fc': bins}}, 'a task', ['b'])
  assert [ax.get_ylabel() for ax in figure.axes] == ['weights', 'groups']
  assert [ax.get_xlabel() for ax in figure.axes] == ['', 'log alpha']  # once, at the foot
  assert 'a task' in words(figure)
  assert 'gap of the histogram' not in words(figure)


def test_hover_labels_are_broken_into_lines_and_are_text():
  label = 'a<b> ' + ', '.join(f'setting{n} 0.{n}' for n in range(20))
  found = [g._replace(label=label) for g in tasks('nothing', [run('a')])]
  *_, marks = interactive.pareto(
    'nothing', found, {r.path: 'a' for g in found for r in g.runs}
  ).data
  lines = re.sub('</?b>', '', marks.text[0]).split('<br>')
  assert max(map(len, map(html.unescape, lines))) <= interactive.LETTERS
  assert ' '.join(map(html.unescape, lines)).startswith(label)


def test_means_lie_over_seeds_and_both_say_their_settings():
  runs = [
    run('a', method=method, seed=seed)._replace(path=pathlib.Path(f'{method}{seed}'))
    for method in ('one', 'other')
    for seed in (0, 1)
  ]
  found = [g._replace(label=f'{g.method}: density 0.1') for g in tasks('nothing', runs)]
  drawn = interactive.pareto('nothing', found, {r.path: str(r.path) for r in runs}).data
  shown = [(len(trace.x), trace.text[0].split('<br>')[0]) for trace in drawn if trace.text]
  labels = ('<b>one: density 0.1</b>', '<b>other: density 0.1</b>')
  assert shown == [(n, label) for n in (2, 1) for label in labels]


def table_of_runs(runs):
  """The head and the rows of the page's table of every run."""
  anchors = {r.path: f'run-{n}' for n, r in enumerate(runs)}
  text = page._runs(runs, anchors, pathlib.Path('/'))
  head = re.findall('<th><button>(.*?)</button></th>', text)
  rows = [re.findall('<td[^>]*>(.*?)</td>', row) for row in re.findall('<tr id.*?</tr>', text)]
  return head, [dict(zip(head, row, strict=True)) for row in rows]


def test_the_table_of_runs_has_the_settings_that_differ_within_a_method():
  runs = [run(f'{n}') for n in range(3)]
  for n, one in enumerate(runs):
    one.config.update({'prune': {'density': n / 10, 'schedule': 'cosine'}, 'setting': 0})
  other = run('other', method='other')
  other.config.update({'strength': 1.0, 'setting': 0})
  head, rows = table_of_runs([*runs, other])
  assert 'prune.density' in head
  assert [row['prune.density'] for row in rows] == ['0', '0.1', '0.2', '-']
  assert not {'prune.schedule', 'strength', 'setting'} & set(head)
  assert [row['seed'] for row in rows] == ['0'] * 4


def test_settings_with_the_same_short_name_are_written_out():
  runs = [run(f'{n}') for n in range(2)]
  for n, one in enumerate(runs):
    one.config.update({'a': {'rate': {'value': n}}, 'b': {'rate': {'value': n}}, 'setting': 0})
  head, _ = table_of_runs(runs)
  assert {'a.rate.value', 'b.rate.value'} <= set(head)


def test_brackets_say_what_their_lines_mean():
  lines = [{'epoch': 1.0, 'validation_loss': 1.0}]
  runs = [run(f'{n}', metrics=lines) for n in range(3)]
  for n, one in enumerate(runs):
    one.summary['epochs'] = float(1 + n // 2)
  rungs = {0: (Rung(3, 1), Rung(1, 2))}
  said = words(search_figures.brackets('a search', {0: runs}, rungs))
  assert {'trained the longest of its bracket', 'trained for less', 'rung: the best go on'} <= {
    *said
  }
  said = words(search_figures.brackets('a search', {0: runs[:2]}, {}))
  assert 'trained for less' not in said
  assert 'rung: the best go on' not in said


def objectives(*values, names=('validation_loss', 'validation_accuracy'), **changes):
  """The figure of trials with these objectives: less loss is better, and more that is right."""
  ways = ('minimize', 'maximize', 'minimize')
  goals = [{'metric': n, 'direction': way} for n, way in zip(names, ways, strict=False)]
  settings = {'objectives': goals, 'constraints': []} | changes
  trials = [
    {'state': 'finished', 'metrics': dict(zip(names, numbers, strict=True))} for numbers in values
  ]
  trials += [{'state': 'stopped', 'metrics': dict.fromkeys(names, 0.0)}]
  trials += [{'state': 'failed', 'metrics': None}]
  named = [{'directory': f'b0-{n}', 'values': {}} | trial for n, trial in enumerate(trials)]
  return search_figures.objectives('a search', settings, tried(named))


def test_the_front_of_a_search_is_what_none_beats_in_every_objective():
  figure = objectives((0.1, 0.5), (0.2, 0.9), (0.3, 0.8), (0.4, 0.9), (0.5, 0.95))
  (ax,) = figure.axes
  assert (ax.get_xlabel(), ax.get_ylabel()) == (
    'validation accuracy (more is better)',
    'validation loss (less is better)',
  )
  (front,) = [line for line in ax.lines if line.get_label().startswith('on the front')]
  assert front.get_xydata().tolist() == [[0.5, 0.1], [0.9, 0.2], [0.95, 0.5]]
  assert sum(len(line.get_xdata()) for line in ax.lines) == 5
  assert '5 that finished' in figure.get_suptitle()


def test_what_breaks_a_constraint_is_on_no_front_and_beats_nothing():
  bound = [{'metric': 'validation_loss', 'at_most': 0.15}]
  figure = objectives((0.1, 0.5), (0.2, 0.9), constraints=bound)
  drawn = {
    line.get_label().split(':')[0]: line.get_xdata().tolist() for line in figure.axes[0].lines
  }
  assert drawn == {'breaks a constraint': [0.9], 'on the front': [0.5]}


def test_three_objectives_have_a_panel_for_each_but_the_first():
  figure = objectives((1.0, 2.0, 3.0), (2.0, 3.0, 40.0), names=('a', 'b', 'c'))
  assert [ax.get_xlabel()[0] for ax in figure.axes] == ['b', 'c']
  assert figure.axes[1].get_xscale() == 'log'


def test_one_objective_or_no_finished_trial_is_no_figure():
  assert objectives((0.1,), names=('loss',)) is None
  assert objectives() is None


@pytest.mark.parametrize('name', ['_private', 'a $x$ \\frac', 'one $'])
def test_a_method_may_be_called_anything(name):
  found = tasks('nothing', [run('a', method=name, active=0.2), run('b', method='other')])
  for figure in (
    pareto.pareto('nothing', found),
    experiments.traces('nothing', found),
    experiments.layer_shares('nothing', found, 'weights'),
  ):
    FigureCanvasAgg(figure).draw()
    texts = figure.legends[0].get_texts()
    assert any(name in text.get_text() and not text.get_parse_math() for text in texts)


def test_a_network_without_a_parameter_lies_on_the_left_edge():
  found = tasks('nothing', [run('a', active=0.2), run('gone', accuracy=0.1, active=0.0)])
  figure = pareto.pareto('nothing', found)
  (hollow,) = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == 'white']
  assert hollow.get_xdata().tolist() == [figure.axes[0].get_xlim()[0]]
  assert any('on the left edge: no parameter is active' in text for text in words(figure))
  drawn = interactive.pareto('nothing', found, {r.path: 'a' for g in found for r in g.runs})
  assert 0 < min(drawn.data[-1].x) < 20


def test_epochs_are_whole_numbers():
  figure = experiments.traces('nothing', tasks('nothing', [run('a')]))
  FigureCanvasAgg(figure).draw()
  assert all(tick == round(tick) for tick in figure.axes[1].get_xticks())


def test_what_was_validated_once_is_a_point():
  once = [{'epoch': 2.0, 'validation_accuracy': 0.9, 'active_fraction': 0.2}]
  figure = experiments.traces('nothing', tasks('nothing', [run('a', metrics=once), run('b')]))
  markers = {len(line.get_xdata()): line.get_marker() for line in figure.axes[0].lines}
  assert markers == {1: 'o', 3: 'None'}


def test_the_front_is_what_nothing_beats_in_both():
  points = [(0.5, 0.9), (0.1, 0.7), (0.2, 0.8), (0.3, 0.75), (0.2, 0.6), (0.6, 0.9)]
  assert pareto.front(points) == [(0.1, 0.7), (0.2, 0.8), (0.5, 0.9)]


def test_histograms_of_many_layers_and_experiments_fit_on_a_page():
  bins = {'from': -8.0, 'to': 8.0, 'counts': [3, 0, 40]}
  bins |= {'threshold': 2.0, 'suggested_threshold': None}
  deep = {f'layer{n}': bins for n in range(20)}
  figure = experiments.log_alpha({'deep': deep, 'flat': {'fc': bins}})
  drawn = [ax.get_title() for ax in figure.axes if ax.get_title()]
  assert drawn == [*deep, 'fc']
  assert figure.get_figwidth() < 25
  figure = experiments.log_alpha({f'{n}': {'fc': bins} for n in range(9)}, 'a title')
  assert sum(bool(ax.get_title()) for ax in figure.axes) == 9
  assert figure.get_suptitle() == 'a title'
