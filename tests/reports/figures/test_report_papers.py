"""Reports for papers: chosen runs, sizes and files; figures of a thousand runs; axes that say."""

import itertools

import numpy as np
import pytest
from PIL import Image
from run_folders import every_kind, read_csv, write_run
from test_report_figures import run, tasks, words

from sparsejax import report
from sparsejax.experiment.show import scales, trace_panels
from sparsejax.reports.figures import (
  bands,
  drawing,
  dress,
  experiments,
  interactive,
  pareto,
  search_figures,
)
from sparsejax.reports.records import collect


def command(tmp_path, *flags):
  arguments = ['report', str(tmp_path / 'runs'), f'--out={tmp_path / "out"}', *flags]
  return report.main(arguments)


@pytest.mark.parametrize(
  ('flag', 'rows'),
  [
    ('--runs=*/seed0', {'sparse/seed0', 'sparser #1 50%?/seed0', 'dense/seed0'}),
    ('--runs=dense/*,seed1', {'dense/seed0', 'seed1'}),
    ('--runs=wrong/*', {'broken', 'unfinished', 'cut', 'diverged', 'collapsed'}),
    ('--methods=den*', {'dense/seed0', 'broken'}),  # which may be of any method
  ],
)
def test_runs_and_methods_are_chosen_by_patterns(tmp_path, monkeypatch, flag, rows):
  monkeypatch.setattr('sparsejax.reports.figures.drawing._plan_tasks', lambda *_: ())
  folder = every_kind(tmp_path / 'runs')
  (folder / 'again').rename(tmp_path / 'again')
  assert command(tmp_path, flag) == 0
  assert set(read_csv(tmp_path / 'out')) == rows


def test_of_what_is_not_chosen_nothing_counts(tmp_path):
  write_run(tmp_path / 'a')
  write_run(tmp_path / 'b')
  assert [r.is_repeated for r in collect.collect([tmp_path])] == [False, True]
  (only,) = collect.collect([tmp_path], collect.Choice(runs=['b']))
  assert not only.is_repeated


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--runs=nothing', '--runs=nothing must match one of a'),
    ('--methods=x,y', '--methods=x,y must match one of pruning'),
    ('--methods=', "--methods='' must be names with commas between them"),
    ('--runs=a,,b', "--runs='a,,b' must be names"),
    *(
      (f'--size={size}', f'--size={size} must be WIDTHxHEIGHT, each from 1 to 50 inches')
      for size in ('3', '3x', 'x', '0x1', '3x999', 'nanx2', 'infx2', '-3x2', '3x2x1', '3,2')
    ),
    ('--format=gif', '--format=gif must be one of png, svg, pdf'),
    ('--format=', "--format='' must be names"),
    ('--form=pdf', 'unrecognized arguments: --form=pdf'),
  ],
)
def test_flags_that_can_not_be_are_one_line_and_status_2(tmp_path, capsys, flag, message):
  write_run(tmp_path / 'runs' / 'a')
  assert command(tmp_path, flag) == 2
  error = capsys.readouterr().err
  assert error.startswith(f'report: {message}')
  assert error.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_figures_have_the_size_and_the_files_that_are_asked_for(tmp_path):
  write_run(tmp_path / 'runs' / 'a')
  assert command(tmp_path, '--size=4x3.5', '--format=pdf,png') == 0
  drawn = sorted(path.name for path in (tmp_path / 'out').glob('*.weights.*'))
  assert drawn == ['lenet300_on_mnist.weights.pdf', 'lenet300_on_mnist.weights.png']
  with Image.open(tmp_path / 'out' / drawn[1]) as image:
    assert image.size == (4 * dress.PRINT_DPI, 3.5 * dress.PRINT_DPI)
  page = (tmp_path / 'out' / drawn[0]).read_bytes()
  assert b'/MediaBox [ 0 0 288 252 ]' in page  # points
  assert b'/Type3' not in page  # letters that a publisher takes
  assert b'CreationDate' not in page
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '![lenet300_on_mnist.weights.png](lenet300_on_mnist.weights.png)' in text
  assert '<img alt="lenet300 on mnist: weights"' in (tmp_path / 'out' / 'report.html').read_text()


@pytest.mark.parametrize('size', [(3.3, 3.3), (5.0, 4.0), (10.0, 8.0)])
def test_nothing_of_a_sized_figure_is_cut_or_lies_on_anything_else(size):
  runs = [run(f'{n}', method=f'a method {n}', active=0.01 * 4**n) for n in (0, 1, 2)]
  for figure in (pareto.pareto('a task', tasks('a task', runs)),):
    dress.FigureCanvasAgg(figure)
    dress.fit(figure, size)
    figure.draw_without_rendering()
    assert tuple(figure.get_size_inches()) == size
    ax, (legend,) = figure.axes[0], figure.legends
    artists = (ax.title, ax.xaxis.label, ax.yaxis.label, legend)
    boxes = [artist.get_window_extent() for artist in artists]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    whole = figure.bbox
    assert all(box.x0 >= 0 and box.x1 <= whole.x1 and box.y0 >= 0 for box in boxes)
    assert not dress._touch(ax.xaxis, 0)
    assert not dress._touch(ax.yaxis, 1)


def test_a_size_without_room_is_a_line_of_what_is_wrong(tmp_path):
  write_run(tmp_path / 'runs' / 'a')
  assert command(tmp_path, '--size=1x1', '--format=svg') == 0
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '| lenet300_on_mnist.traces | not drawn | 1x1 inches leave it no room' in text


# A thousand runs.


def test_quantiles_by_hand():
  x = np.array([0.0, 1.0])
  curves = [(x, np.array([float(n), 10.0 * n])) for n in range(11)]
  places, (low, middle, high) = bands.quantiles(curves)
  assert places.tolist() == [0.0, 1.0]
  assert (low.tolist(), middle.tolist(), high.tolist()) == ([1, 10], [5, 50], [9, 90])


def test_a_quantile_is_of_the_curves_that_reach_so_far():
  short, long = np.array([1.0, 2.0]), np.array([1.0, 2.0, 3.0])
  curves = [(short, short)] * 9 + [(long, 2 * long)]
  places, (_, middle, _) = bands.quantiles(curves)
  assert places.tolist() == [1.0, 2.0, 3.0]
  assert middle.tolist() == [1.0, 2.0, 6.0]
  assert bands.quantiles([*curves, *curves[:9]])[0].tolist() == [1.0, 2.0]  # one of 19
  assert [part.size for part in bands.quantiles([])] == [0, 0]


def thousand():
  runs = [
    run(f'{n}', method='abc'[n % 3], active=0.01 + n / 1100, accuracy=0.9 + (n % 97) / 1000)
    for n in range(1000)
  ]
  return tasks('nothing', runs)


def drawn(figure):
  return sum(len(ax.lines) + len(ax.collections) for ax in figure.axes)


def test_a_thousand_experiments_are_fronts_and_bands():
  found = thousand()
  figure = pareto.pareto('nothing', found)
  assert drawn(figure) < 20
  assert any('a band from 25 to 75 %' in text for text in words(figure))
  traces = experiments.traces('nothing', found)
  assert drawn(traces) < 60
  assert any('of all 1000 experiments' in text for text in words(traces))
  page = interactive.pareto('nothing', found, {r.path: 'a' for g in found for r in g.runs})
  assert len(page.data) == 9


def test_a_hundred_seeds_are_a_median_and_a_band():
  runs = [run('a', seed=seed, accuracy=0.9 + seed / 1e4) for seed in range(100)]
  figure = experiments.traces('nothing', tasks('nothing', runs))
  assert [len(ax.lines) for ax in figure.axes] == [1, 1]
  assert figure.axes[0].lines[0].get_ydata()[0] == pytest.approx(0.90495)
  assert any('median, and from 10 to 90 %' in text for text in words(figure))


def test_of_more_methods_than_colours_the_others_are_grey():
  runs = [run(f'{n}', method=f'm{n:02}', active=0.1, accuracy=0.5 + n / 100) for n in range(30)]
  runs.append(run('least', method='least', active=0.01, accuracy=0.4))  # on the front
  found = tasks('nothing', runs)
  shown = pareto.coloured_methods(pareto.group_by_method(found))
  assert shown == ['least', *(f'm{n}' for n in range(21, 30))]
  assert '21 other methods' in words(pareto.pareto('nothing', found))
  page = interactive.pareto('nothing', found, {r.path: 'a' for g in found for r in g.runs})
  assert '21 other methods' in [trace.name for trace in page.data]


def test_histograms_are_of_as_many_experiments_as_a_page_has_room_for():
  bins = {'from': -8.0, 'to': 8.0, 'counts': [3], 'threshold': 2.0, 'suggested_threshold': None}
  runs = [run(f'{n}', method=f'm{n}', active=0.1 + n / 100) for n in range(10)]
  for one in runs:
    one.summary['log_alpha'] = {f'layer{k}': bins for k in range(16)}
  figure = drawing._log_alpha('a task', tasks('a task', runs))
  assert sum(ax.axison for ax in figure.axes) == 3 * 16  # of 60 that there may be
  assert '3 of 10 experiments' in ' '.join(words(figure))
  assert drawing._fit_one_page(tasks('a task', runs[:3])) == tasks('a task', runs[:3])


def test_many_trials_of_a_bracket_are_a_band():
  lines = [{'epoch': float(e), 'validation_loss': 1.0 / e} for e in (1, 2, 3)]
  runs = [run(f'{n}', metrics=lines[: 1 + n // 99], summary={}) for n in range(300)]
  figure = search_figures.brackets('a search', {0: runs}, {})
  assert len(figure.axes[0].lines) < 150
  [band] = figure.axes[0].collections  # of those that were trained for less, up to epoch 2
  assert band.get_paths()[0].vertices[:, 0].max() == 2
  assert any('trained for less: median' in text for text in words(figure))


def test_the_page_has_a_box_that_filters_and_loads_nothing(tmp_path):
  write_run(tmp_path / 'runs' / 'a')
  assert command(tmp_path) == 0
  text = (tmp_path / 'out' / 'report.html').read_text()
  assert text.count('<input type="search"') == 1
  script = text.rpartition('<script>')[2]
  assert 'fetch' not in script
  assert 'http' not in script


def test_an_axis_by_the_log_of_the_error_says_so():
  found = tasks('nothing', [run('a')])
  for figure in (pareto.pareto('nothing', found), experiments.traces('nothing', found)):
    for ax in figure.axes:
      is_by_log = ax.get_yscale() == 'function'
      assert is_by_log == (scales.BY_LOG in ax.get_ylabel())
  for panel in trace_panels.PANELS:
    assert (panel.scale is scales.accuracy) == (scales.BY_LOG in panel.name)
