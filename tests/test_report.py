"""Reports of run directories made by hand, broken ones among them."""

import csv
import html.parser
import json
import math
import pathlib
import re
import urllib.parse

import pytest
from PIL import Image

from sparsejax import report
from sparsejax.reports import collect, figures, groups, pareto, published, tables

LAYERS = {
  'fc1': {'weights': 800, 'active_weights': 40, 'units': 20, 'active_units': 5},
  'fc2': {'weights': 200, 'active_weights': 10, 'units': 10, 'active_units': 10},
}


def write_run(path, *, seed=0, accuracy=0.98, target=0.05, method='pruning', epochs=4, **changes):
  """A finished run of lenet300 on mnist, as small as one can be; None leaves a file out."""
  config = {
    'hash': changes.pop('hash', f'{method[:3]}{target}'),
    'method': method,
    'seed': seed,
    'epochs': float(epochs),
    'data': {'name': 'mnist', 'limit': None},
    'model': {'name': 'lenet300', 'width': None},
    'prune': {'target': target, 'granularity': 'weight'},
  }
  summary = {
    'name': 'lenet300',
    'seed': seed,
    'epochs': float(epochs),
    'seconds': 10.0,
    'validation_accuracy': accuracy + 0.005,
    'test_accuracy': accuracy,
    'parameters': 1000,
    'active_parameters': int(1000 * target),
    'active_fraction': target,
    'weights': 1000,
    'active_weights': int(1000 * target),
    'compression': 1 / target,
    'theoretical_speedup': 0.5 / target,
    'layers': LAYERS,
    'phases': {'dense': {'validation_accuracy': 0.99}, 'retrained': {'validation_accuracy': 0.98}},
  }
  lines = [
    {'step': 10 * e, 'epoch': float(e), 'validation_accuracy': accuracy - 0.1 / e}
    | {'validation_loss': 1.0 / e, 'train_loss': 1.0 / e, 'active_fraction': target}
    for e in range(1, epochs + 1)
  ]
  environment = [{'cpus': 2, 'processor': 'a chip', 'devices': ['cpu'], 'backend': 'cpu'}]
  path.mkdir(parents=True)
  contents = {'config': config, 'summary': summary, 'metrics': lines, 'environment': environment}
  for name, content in (contents | changes).items():
    if isinstance(content, str):
      text = content
    elif name == 'metrics' and content is not None:
      text = ''.join(json.dumps(line) + '\n' for line in content)
    else:
      text = json.dumps(content)
    if content is not None:
      suffix = 'jsonl' if name == 'metrics' else 'json'
      (path / f'{name}.{suffix}').write_text(text)
  return path


@pytest.fixture
def folder(tmp_path):
  """Three seeds of one experiment, one of another, a dense control, and all that can be wrong."""
  root = tmp_path / 'runs'
  for seed, accuracy in enumerate((0.97, 0.98, 0.99)):
    write_run(root / 'sparse' / f'seed{seed}', seed=seed, accuracy=accuracy)
  write_run(root / 'sparser #1 50%?' / 'seed0', target=0.01, accuracy=0.95)
  write_run(root / 'dense' / 'seed0', target=1.0, accuracy=0.985, method='dense')
  wrong = root / 'wrong'
  write_run(wrong / 'unfinished', summary=None, target=0.02)
  write_run(wrong / 'cut', target=0.03, metrics='{"epoch": 1.0, "step": 1}\n{"epoch": 2.0, "st')
  write_run(wrong / 'broken', config='{"seed": ', summary='[]', metrics=None)
  write_run(
    wrong / 'diverged', summary=None, target=0.04, metrics='{"epoch": 1, "train_loss": NaN}'
  )
  gone = {'fc1': {'weights': 800, 'active_weights': 0}, 'fc2': LAYERS['fc2']}
  path = write_run(wrong / 'collapsed', target=0.001, accuracy=0.1)
  edit(path / 'summary.json', layers=gone)
  write_run(root / 'again' / 'sparse' / 'seed0', accuracy=0.5)
  return root


def edit(file, **changes):
  file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def read_csv(out):
  with (out / 'runs.csv').open() as file:
    return {row['run']: row for row in csv.DictReader(file)}


def test_every_run_is_a_row_with_its_state_and_what_is_wrong(folder, tmp_path):
  report.report([folder, folder / 'again'], tmp_path / 'out')
  rows = read_csv(tmp_path / 'out')
  states = {name: row['state'] for name, row in rows.items()}
  assert states == {
    'runs/sparse/seed0': 'finished',
    'seed1': 'finished',
    'seed2': 'finished',
    'sparser #1 50%?/seed0': 'finished',
    'dense/seed0': 'finished',
    'unfinished': 'unfinished',
    'cut': 'finished',
    'broken': 'broken',
    'diverged': 'failed',
    'collapsed': 'collapsed',
    'again/sparse/seed0': 'finished',
  }
  problems = {name: row['problems'] for name, row in rows.items() if row['problems']}
  assert problems.pop('cut') == 'metrics.jsonl, line 2, is cut off or no line of metrics'
  assert problems.pop('broken').startswith('config.json can not be read: ')
  assert 'has the same name as again/sparse/seed0' in problems['runs/sparse/seed0']
  assert 'of again/sparse/seed0, and is not counted again' in problems.pop('runs/sparse/seed0')
  assert problems.pop('again/sparse/seed0') == 'it has the same name as runs/sparse/seed0'
  assert problems == {'diverged': 'its loss left the finite numbers'}
  text = (tmp_path / 'out' / 'report.md').read_text()
  for name in ('unfinished', 'cut', 'broken', 'diverged', 'collapsed', 'again/sparse/seed0'):
    assert f'| {name} |' in text


def test_every_setting_and_every_figure_is_in_the_table(folder, tmp_path):
  report.report([folder], tmp_path / 'out')
  row = read_csv(tmp_path / 'out')['seed1']
  assert row['config.prune.target'] == '0.05'
  assert row['config.seed'] == '1'
  assert row['summary.layers.fc1.active_units'] == '5'
  assert row['summary.test_accuracy'] == '0.98'
  assert row['last.validation_loss'] == '0.25'
  assert row['machine.processor'] == 'a chip'
  assert json.loads(row['machine.devices']) == ['cpu']
  assert (tmp_path / 'out' / row['path'] / 'summary.json').exists()


def test_means_and_deviations_are_over_the_seeds_of_an_experiment(tmp_path):
  for seed, accuracy in enumerate((0.97, 0.98, 0.99)):
    write_run(tmp_path / f'seed{seed}', seed=seed, accuracy=accuracy)
  (found,) = groups.group(collect.collect([tmp_path]))
  assert found.moments('test_accuracy') == (pytest.approx(0.98), pytest.approx(0.01))
  ((kind, head, rows),) = tables.task_tables([found])
  assert kind == 'unstructured'
  row = dict(zip(head, rows[0], strict=True))
  assert row['experiment'] == 'pruning'
  assert row['n'] == '3'
  assert row['active parameters'] == '5.00 %'
  assert (row['compression'], row['speed-up']) == ('20x', '10x')
  assert row['validation, %: before the first cut, just cut, final'] == '-, -, 98.00'
  assert row['test accuracy, %'] == '98.00 ± 1.00'


def test_what_is_counted_are_finished_runs_each_seed_once(folder):
  found = {group.label: group for group in groups.group(collect.collect([folder]))}
  # The copy is the first by path; the original seed 0 is left out.
  assert len(found['pruning: prune.target 0.05'].counted) == 3
  assert len(found['pruning: prune.target 0.05'].runs) == 4
  assert found['pruning: prune.target 0.02'].counted == ()
  assert math.isnan(found['pruning: prune.target 0.02'].moments('test_accuracy')[0])
  assert math.isnan(found['pruning: prune.target 0.01'].moments('test_accuracy')[1])
  (collapsed,) = found['pruning: prune.target 0.001'].counted
  assert collapsed.state == 'collapsed'
  assert found['dense'].kind == 'dense'


@pytest.mark.parametrize(
  ('changes', 'kind'),
  [
    ({}, 'unstructured'),
    ({'prune': {'granularity': 'filters'}}, 'structured'),
    ({'prune': {'granularity': 'n_of_m'}}, 'semi-structured'),
    ({'layers': 'group_horseshoe'}, 'structured'),
    ({'layers': 'sparse_vd'}, 'unstructured'),
    ({'proximal_group_l1': {'strength': 1.0}}, 'structured'),
  ],
)
def test_structured_and_unstructured_are_told_apart(tmp_path, changes, kind):
  path = write_run(tmp_path / 'run')
  edit(path / 'config.json', **changes)
  assert [group.kind for group in groups.group(collect.collect([tmp_path]))] == [kind]


def test_what_a_summary_lacks_or_has_as_null_is_no_reason_to_stop(tmp_path):
  path = write_run(tmp_path / 'runs' / 'untested')
  figures_of = json.loads((path / 'summary.json').read_text())
  del figures_of['test_accuracy'], figures_of['phases'], figures_of['layers']
  (path / 'summary.json').write_text(json.dumps(figures_of))
  path = write_run(tmp_path / 'runs' / 'empty', target=0.01, metrics='')
  edit(path / 'summary.json', active_weights=0, active_fraction=0.0, compression=None)
  report.report([tmp_path / 'runs'], tmp_path / 'out')
  rows = read_csv(tmp_path / 'out')
  assert {name: row['state'] for name, row in rows.items()} == {
    'untested': 'finished',
    'empty': 'finished',
  }
  assert '| infinite |' in (tmp_path / 'out' / 'report.md').read_text()


@pytest.mark.parametrize(
  ('file', 'changes'),
  [
    ('summary.json', {'validation_accuracy': None}),
    ('summary.json', {'epochs': None}),
    ('summary.json', {'layers': None}),
    ('summary.json', {'layers': {'fc1': {'units': 3}}}),
    ('config.json', {'epochs': None}),
    ('config.json', {'data': None}),
  ],
)
def test_what_can_not_be_is_a_row_that_says_so(tmp_path, file, changes):
  write_run(tmp_path / 'runs' / 'whole', target=0.02)
  path = write_run(tmp_path / 'runs' / 'odd')
  edit(path / file, **changes)
  report.report([tmp_path / 'runs'], tmp_path / 'out')
  rows = read_csv(tmp_path / 'out')
  assert rows['whole']['problems'] == ''
  assert rows['odd']['problems'].startswith(f'{file} has no {next(iter(changes))} ')


def test_experiments_of_one_label_are_told_apart_by_their_hash(tmp_path):
  write_run(tmp_path / 'runs' / 'a', hash='1111')
  write_run(tmp_path / 'runs' / 'b', hash='2222')
  report.report([tmp_path / 'runs'], tmp_path / 'out')
  labels = [group.label for group in groups.group(collect.collect([tmp_path / 'runs']))]
  assert labels == ['pruning (1111)', 'pruning (2222)']


def test_a_network_that_guesses_has_collapsed(tmp_path):
  write_run(tmp_path / 'guesses', accuracy=0.1)
  write_run(tmp_path / 'knows', accuracy=0.2, target=0.1)
  states = {run.name: run.state for run in collect.collect([tmp_path])}
  assert states == {'guesses': 'collapsed', 'knows': 'finished'}


def test_the_front_is_what_nothing_beats_in_both():
  points = [(0.5, 0.9), (0.1, 0.7), (0.2, 0.8), (0.3, 0.75), (0.2, 0.6), (0.6, 0.9)]
  assert pareto.front(points) == [(0.1, 0.7), (0.2, 0.8), (0.5, 0.9)]


def test_a_figure_says_what_published_points_count():
  log = published.note(published.points('resnet50 on cifar10'))
  paper = published.note(published.points('lenet5 on mnist'))
  assert paper == 'published: fractions of the weights, without biases and norms'
  assert log == f"{paper}; the log's accuracies are of validation images"


def test_the_dense_network_is_chosen_on_validation_images(tmp_path):
  for name, validation, test in (('a', 0.99, 0.97), ('b', 0.98, 0.98)):
    path = write_run(tmp_path / name, target=1.0, hash=name, method='dense')
    edit(path / 'summary.json', validation_accuracy=validation, test_accuracy=test)
  (found, label) = pareto.best_dense(groups.group(collect.collect([tmp_path])))
  assert found.moments('test_accuracy')[0] == 0.97
  assert label == 'best of 2 dense (n = 1)'


def test_histograms_of_many_layers_and_experiments_fit_on_a_page():
  bins = {'from': -8.0, 'to': 8.0, 'counts': [3, 0, 40]}
  bins |= {'threshold': 2.0, 'suggested_threshold': None}
  deep = {f'layer{n}': bins for n in range(20)}
  figure = figures.log_alpha({'deep': deep, 'flat': {'fc': bins}})
  drawn = [ax.get_title() for ax in figure.axes if ax.get_title()]
  assert drawn == [*deep, 'fc']
  assert figure.get_figwidth() < 25
  figure = figures.log_alpha({f'{n}': {'fc': bins} for n in range(9)}, 'a title')
  assert sum(bool(ax.get_title()) for ax in figure.axes) == 9
  assert figure.get_suptitle() == 'a title'


def test_no_two_styles_are_the_same():
  found = figures.styles([str(n) for n in range(28)])
  assert len({tuple(style.values()) for style in found.values()}) == 28


def test_published_points_are_fractions_of_tasks_that_runs_can_have(tmp_path):
  assert published.points('vgg16 of width 8 on cifar10') == {}
  write_run(tmp_path / 'run')
  task = collect.collect([tmp_path])[0].task
  found = published.points(task)
  (point,) = found['Deep Compression 2015']
  assert point.active_fraction == pytest.approx(1 / 12)
  assert point.accuracy == pytest.approx(1 - 0.0158)
  for point in published.POINTS:
    assert 0 < point.active_fraction < 1
    assert 0.1 <= point.accuracy < 1


PICTURES = ('pareto', 'traces', 'weights', 'units')


def test_pictures_are_drawn_as_png_and_svg_and_are_in_the_pages(folder, tmp_path):
  out = tmp_path / 'out'
  report.report([folder], out)
  text = (out / 'report.md').read_text()
  for name in PICTURES:
    stem = f'lenet300_on_mnist.{name}'
    with Image.open(out / f'{stem}.png') as image:
      assert min(image.size) > 400
      assert len(image.convert('RGB').getcolors(1 << 24)) > 10
    assert '</svg>' in (out / f'{stem}.svg').read_text()
    assert f'({stem}.png)' in text
  assert (out / 'report.html').read_text().count('<p><img alt=') == len(PICTURES)


def test_the_same_runs_make_the_same_report(folder, tmp_path):
  for name in ('a', 'b'):
    report.report([folder], tmp_path / name)
  for file in (tmp_path / 'a').iterdir():
    if file.suffix in ('.svg', '.csv', '.md'):
      assert file.read_bytes() == (tmp_path / 'b' / file.name).read_bytes()


class Links(html.parser.HTMLParser):
  """What a page links to, what it calls its parts, and what it loads."""

  def __init__(self, text):
    super().__init__()
    self.targets, self.anchors, self.loaded = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self.anchors += [attributes['id']] if 'id' in attributes else []
    self.targets += [attributes['href']] if tag == 'a' else []
    self.loaded += [attributes[key] for key in ('src',) if key in attributes]


def test_the_page_needs_nothing_and_its_links_lead_to_runs(folder, tmp_path):
  out = tmp_path / 'elsewhere' / 'out'
  report.report([folder], out)
  text = (out / 'report.html').read_text()
  links = Links(text)
  assert all(source.startswith('data:') for source in links.loaded)
  for target in links.targets:
    if target.startswith('#'):
      assert target[1:] in links.anchors
    else:
      assert (out / urllib.parse.unquote(target)).exists(), target
  runs = collect.collect([folder])
  assert sum(anchor.startswith('run-') for anchor in links.anchors) == len(runs)
  points = re.findall(r'"customdata":\[([^]]*)\]', text)
  anchors = {anchor.strip('"') for found in points for anchor in found.split(',') if anchor}
  counted = [run for group in groups.group(runs) for run in group.counted if group.kind != 'dense']
  assert anchors == {f'run-{runs.index(run)}' for run in counted}


def test_names_with_special_characters_are_text_and_not_markup(tmp_path):
  write_run(tmp_path / 'a<b>&"c', method='<script>alert(1)</script>|')
  report.report([tmp_path], tmp_path / 'out')
  text = (tmp_path / 'out' / 'report.html').read_text()
  assert '<script>alert(1)' not in text
  assert '\\u003cscript' in text or '&lt;script&gt;alert(1)' in text
  table = (tmp_path / 'out' / 'report.md').read_text()
  assert {line.count('|') for line in table.splitlines() if line.startswith('| <script')} == {10}


def test_a_search_is_drawn_by_its_brackets(tmp_path):
  search = tmp_path / 'search'
  for name, epochs in (('b0-000', 1), ('b0-001', 9), ('b0-002', 3), ('b1-000', 3), ('b2-000', 9)):
    finished = {} if epochs == 9 else {'summary': None}
    path = write_run(search / 'runs' / name, epochs=epochs, target=0.1 + epochs / 100, **finished)
    edit(path / 'config.json', epochs=9.0)
  write_sweep(search, 'hyperband')
  report.report([search], tmp_path / 'out')
  text = (tmp_path / 'out' / 'search0.brackets.svg').read_text()
  assert '9@1' in text
  assert '5@3' in text
  assert (tmp_path / 'out' / 'search0.brackets.png').exists()


def write_sweep(search, scheduler, trials=None):
  settings = {
    'scheduler': {'name': scheduler, 'eta': 3},
    'configs': ['configs/quickstart.py'],
    'sampler': 'random',
    'objectives': [{'metric': 'validation_loss', 'direction': 'minimize'}],
    'constraints': [],
  }
  (search / 'sweep.json').write_text(json.dumps(settings))
  if trials is not None:
    (search / 'trials.json').write_text(trials if isinstance(trials, str) else json.dumps(trials))


def trial(number, state, epochs, loss=None):
  metrics = None if loss is None else {'validation_loss': loss}
  found = {'directory': f'b0-00{number}', 'rung': epochs // 4, 'epoch': epochs, 'state': state}
  return found | {'values': {'prune.target': 0.1}, 'metrics': metrics, 'error': None}


def test_what_a_search_stopped_is_no_mistake_and_what_it_found_is_a_table(tmp_path):
  search = tmp_path / 'search'
  write_run(search / 'runs' / 'b0-000', target=0.1)
  for number, target in ((1, 0.2), (2, 0.3), (3, 0.4)):
    write_run(search / 'runs' / f'b0-00{number}', target=target, summary=None)
  trials = [
    trial(0, 'stopped', 1, 0.5),
    trial(1, 'stopped', 1, 0.2),
    trial(2, 'running', 4),
    trial(3, 'failed', 1),
    trial(0, 'finished', 4, 0.3),
  ]
  write_sweep(search, 'optuna_hyperband', trials)
  report.report([search], tmp_path / 'out')
  states = {name: row['state'] for name, row in read_csv(tmp_path / 'out').items()}
  assert states == {
    'b0-000': 'finished',
    'b0-001': 'stopped',
    'b0-002': 'unfinished',
    'b0-003': 'failed',
  }
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '| b0-000 | finished | 4 | 0.3 | 0.1 |\n| b0-001 | stopped | 1 | 0.2 | 0.1 |\n' in text
  assert '## search: Hyperband by Optuna' in text
  assert 'By least validation loss; on validation images.' in text
  assert '| b0-001 | stopped | it is' not in text
  assert '| b0-002 | unfinished | it is at epoch 4 of 4 |' in text
  assert 'prune.target 0.2' not in text
  assert 'b0-001' in (tmp_path / 'out' / 'report.html').read_text()


@pytest.mark.parametrize('trials', [None, '[{"directory": ', '[5]', '{}'])
def test_a_search_whose_trials_can_not_be_read_is_still_drawn(tmp_path, trials):
  search = tmp_path / 'search'
  write_run(search / 'runs' / 'b0-000', summary=None)
  write_sweep(search, 'hyperband', trials)
  report.report([search], tmp_path / 'out')
  assert read_csv(tmp_path / 'out')['b0-000']['state'] == 'unfinished'
  assert (tmp_path / 'out' / 'search0.brackets.png').exists()
  is_damaged = trials not in (None, '{}')
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert ('| search | broken | trials.json can not be read' in text) == is_damaged


def test_a_search_whose_settings_can_not_be_read_is_listed(tmp_path):
  search = tmp_path / 'search'
  write_run(search / 'runs' / 'b0-000', summary=None)
  (search / 'sweep.json').write_text('{"configs": ')
  report.report([search], tmp_path / 'out')
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '| search | broken | sweep.json can not be read' in text


def test_a_grid_is_compared_by_means_over_its_seeds(tmp_path):
  search = tmp_path / 'search'
  write_run(search / 'runs' / 'b0-000')
  found = []
  for number, (target, seed, loss) in enumerate(
    [(0.1, 0, 0.3), (0.1, 1, 0.5), (0.2, 0, 0.2), (0.2, 1, 0.9), (0.3, 0, 0.1), (0.3, 1, None)]
  ):
    state = 'failed' if loss is None else 'finished'
    found.append(trial(number, state, 4, loss) | {'values': {'prune.target': target, 'seed': seed}})
  write_sweep(search, 'none', found)
  bound = {'metric': 'validation_loss', 'at_most': 0.5}
  edit(search / 'sweep.json', sampler='grid', constraints=[bound])
  report.report([search], tmp_path / 'out')
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '## search: grid over configs/quickstart.py' in text
  assert 'By least validation loss, with validation loss at most 0.5; on validation' in text
  table = text.partition('where they stopped.')[2].strip().splitlines()
  assert table[:5] == [
    '| trial | state | n | trained for, epochs | validation loss | constraints | prune.target |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    '| b0-004 | finished | 1 | 4 | 0.1 | kept | 0.3 |',
    '| b0-000, b0-001 | finished | 2 | 4 | 0.4 ± 0.1 | kept | 0.1 |',
    '| b0-002, b0-003 | finished | 2 | 4 | 0.55 ± 0.49 | validation loss 0.05 above | 0.2 |',
  ]


def test_one_hash_under_another_method_is_another_experiment(tmp_path):
  for method in ('right', 'wrong'):
    write_run(tmp_path / method / 'seed0', method=method, hash='same')
  runs = collect.collect([tmp_path])
  assert [run.is_repeated for run in runs] == [False, False]
  assert [len(group.counted) for group in groups.group(runs)] == [1, 1]


def test_a_damaged_copy_is_not_the_one_that_counts(tmp_path):
  write_run(tmp_path / 'a' / 'seed0', metrics='{"epoch": 1.0}\n{"ep')
  write_run(tmp_path / 'b' / 'seed0')
  write_run(tmp_path / 'c' / 'seed0', summary='{"epochs": ')
  write_run(tmp_path / 'd' / 'seed1', seed=1)
  copy, whole, broken, other = collect.collect([tmp_path])
  assert copy.is_repeated
  assert not whole.is_repeated
  assert broken.state == 'broken'
  assert not other.is_repeated
  (found,) = groups.group([copy, whole, broken, other])
  ((_, _, rows),) = tables.task_tables([found])
  assert rows[0][1] == '2'  # seeds, of two that there are


def test_an_accuracy_that_is_no_number_is_a_broken_summary(tmp_path):
  edit(write_run(tmp_path / 'a') / 'summary.json', test_accuracy=math.nan)
  (run,) = collect.collect([tmp_path])
  assert run.state == 'broken'
  assert run.problems == ('summary.json has no test_accuracy that is a number',)


def test_a_binary_file_of_metrics_is_one_problem(tmp_path):
  path = write_run(tmp_path / 'a')
  (path / 'metrics.jsonl').write_bytes(bytes(range(256)) * 50)
  (run,) = collect.collect([tmp_path])
  (problem,) = run.problems
  assert problem == ('metrics.jsonl, line 1, is cut off or no line of metrics, and so are 50 more')


def test_a_network_that_was_sparse_from_the_start_has_no_accuracy_before_its_cut(tmp_path):
  phases = {
    'dense': {'step': 0, 'validation_accuracy': 0.1},
    'pruned': {'step': 0, 'validation_accuracy': 0.1},
    'retrained': {'step': 40, 'validation_accuracy': 0.98},
  }
  edit(write_run(tmp_path / 'a') / 'summary.json', phases=phases)
  ((_, head, rows),) = tables.task_tables(groups.group(collect.collect([tmp_path])))
  assert (
    rows[0][head.index('validation, %: before the first cut, just cut, final')] == '-, -, 98.00'
  )


def test_trials_of_two_searches_have_the_same_names_by_nature(tmp_path):
  for name in ('one', 'other'):
    write_run(tmp_path / name / 'runs' / 'b0-000', hash=name)
    write_sweep(tmp_path / name, 'none')
  runs = collect.collect([tmp_path / 'one', tmp_path / 'other'])
  assert [run.name for run in runs] == ['one/runs/b0-000', 'other/runs/b0-000']
  assert [run.problems for run in runs] == [(), ()]


def test_runs_above_and_below_each_other_are_counted_once(folder, tmp_path):
  once = collect.collect([folder])
  assert collect.collect([folder, folder / 'sparse', folder / 'sparse' / 'seed0']) == once


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'DIR is missing: allowed are run directories and folders above them'),
    (('RUNS',), '--out is missing: allowed is --out=a folder'),
    (('NOWHERE', '--out=OUT'), 'there is no such folder; allowed are folders with runs'),
    (('EMPTY', '--out=OUT'), 'no run; allowed are run directories and folders above them'),
    (('RUNS', '--out=FILE'), 'allowed is a folder to write'),
    (('RUNS', '--output=OUT'), 'unrecognized arguments: --output='),
  ],
)
def test_what_can_not_be_reported_is_one_line_and_status_2(tmp_path, capsys, arguments, message):
  write_run(tmp_path / 'runs' / 'a')
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('')
  places = {'RUNS': 'runs', 'NOWHERE': 'nowhere', 'EMPTY': 'empty', 'FILE': 'file', 'OUT': 'out'}
  argv = ['report']
  for argument in arguments:
    for name, place in places.items():
      argument = argument.replace(name, str(tmp_path / place))
    argv.append(argument)
  assert report.main(argv) == 2
  error = capsys.readouterr().err
  assert error.startswith('report: ')
  assert message in error
  assert error.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_paths_of_the_table_are_relative_to_its_folder():
  path = tables.relative(pathlib.Path('/a/runs/x'), pathlib.Path('/a/reports'))
  assert path == '../runs/x'


def test_what_could_remove_weights_and_did_not_is_no_dense_control(tmp_path):
  path = write_run(tmp_path / 'posterior' / 'seed0', target=1.0, method='Bayesian')
  config = json.loads((path / 'config.json').read_text())
  chain = ['add_kl_gradients', 'scale_by_adam']
  config |= {'chain': chain, 'layers': 'group_horseshoe', 'prune': {}}
  edit(path / 'config.json', **config)
  write_run(tmp_path / 'dense' / 'seed0', target=1.0, method='dense')
  kinds = {g.method: g.kind for g in groups.group(collect.collect([tmp_path]))}
  assert kinds == {'Bayesian': 'structured', 'dense': 'dense'}
