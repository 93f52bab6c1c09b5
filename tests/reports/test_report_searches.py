"""What a report says of searches and their trials."""

import pytest
from run_folders import edit, read_csv, write_run, write_sweep

from sparsejax import report
from sparsejax.reports.records import trials


def test_a_search_is_drawn_by_its_brackets(tmp_path):
  search = tmp_path / 'search'
  for name, epochs in (('b0-000', 1), ('b0-001', 9), ('b0-002', 3), ('b1-000', 3), ('b2-000', 9)):
    finished = {} if epochs == 9 else {'summary': None}
    path = write_run(search / 'runs' / name, epochs=epochs, density=0.1 + epochs / 100, **finished)
    edit(path / 'config.json', epochs=9.0)
  write_sweep(search, 'hyperband')
  report.report([search], tmp_path / 'out')
  text = (tmp_path / 'out' / 'search0.brackets.svg').read_text()
  assert '9@1' in text
  assert '5@3' in text
  assert (tmp_path / 'out' / 'search0.brackets.png').exists()


def trial(number, state, epochs, loss=None):
  metrics = None if loss is None else {'validation_loss': loss}
  found = {'directory': f'b0-00{number}', 'rung': epochs // 4, 'epoch': epochs, 'state': state}
  return found | {'values': {'prune.density': 0.1}, 'metrics': metrics, 'error': None}


def test_what_a_search_stopped_is_no_mistake_and_what_it_found_is_a_table(tmp_path):
  search = tmp_path / 'search'
  write_run(search / 'runs' / 'b0-000', density=0.1)
  for number, density in ((1, 0.2), (2, 0.3), (3, 0.4)):
    write_run(search / 'runs' / f'b0-00{number}', density=density, summary=None)
  found = [
    trial(0, 'stopped', 1, 0.5),
    trial(1, 'stopped', 1, 0.2),
    trial(2, 'running', 4),
    trial(3, 'failed', 1),
    trial(0, 'finished', 4, 0.3),
  ]
  write_sweep(search, 'optuna_hyperband', found)
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
  assert 'prune.density 0.2' not in text
  assert 'b0-001' in (tmp_path / 'out' / 'report.html').read_text()


def test_the_trials_of_a_search_are_read_once(tmp_path, monkeypatch):
  write_run(tmp_path / 'runs' / 'b0-000')
  write_run(tmp_path / 'runs' / 'b0-001', density=0.1)
  write_sweep(tmp_path, 'none', [trial(0, 'finished', 4, 0.3)])
  read_from, read = [], trials.read
  monkeypatch.setattr(trials, 'read', lambda folder: read_from.append(folder) or read(folder))
  report.report([tmp_path], tmp_path / 'out')
  assert read_from == [tmp_path]


@pytest.mark.parametrize('content', [None, '[{"directory": ', '[5]', '{}'])
def test_a_search_whose_trials_can_not_be_read_is_still_drawn(tmp_path, content):
  search = tmp_path / 'search'
  write_run(search / 'runs' / 'b0-000', summary=None)
  write_sweep(search, 'hyperband', content)
  report.report([search], tmp_path / 'out')
  assert read_csv(tmp_path / 'out')['b0-000']['state'] == 'unfinished'
  assert (tmp_path / 'out' / 'search0.brackets.png').exists()
  is_damaged = content not in (None, '{}')
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert ('| search | broken | trials.json cannot be read' in text) == is_damaged


def test_a_search_whose_settings_can_not_be_read_is_listed(tmp_path):
  search = tmp_path / 'search'
  write_run(search / 'runs' / 'b0-000', summary=None)
  (search / 'sweep.json').write_text('{"configs": ')
  report.report([search], tmp_path / 'out')
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '| search | broken | sweep.json cannot be read' in text


def test_a_grid_is_compared_by_means_over_its_seeds(tmp_path):
  search = tmp_path / 'search'
  write_run(search / 'runs' / 'b0-000')
  found = []
  for number, (density, seed, loss) in enumerate(
    [(0.1, 0, 0.3), (0.1, 1, 0.5), (0.2, 0, 0.2), (0.2, 1, 0.9), (0.3, 0, 0.1), (0.3, 1, None)]
  ):
    state = 'failed' if loss is None else 'finished'
    found.append(
      trial(number, state, 4, loss) | {'values': {'prune.density': density, 'seed': seed}}
    )
  write_sweep(search, 'none', found)
  bound = {'metric': 'validation_loss', 'at_most': 0.5}
  edit(search / 'sweep.json', sampler='grid', constraints=[bound])
  report.report([search], tmp_path / 'out')
  text = (tmp_path / 'out' / 'report.md').read_text()
  assert '## search: grid over configs/quickstart.py' in text
  assert 'By least validation loss, with validation loss at most 0.5; on validation' in text
  table = text.partition('where they stopped.')[2].strip().splitlines()
  assert table[:5] == [
    '| trial | state | n | trained for, epochs | validation loss | constraints | prune.density |',
    '| --- | --- | --- | --- | --- | --- | --- |',
    '| b0-004 | finished | 1 | 4 | 0.1 | kept | 0.3 |',
    '| b0-000, b0-001 | finished | 2 | 4 | 0.40 ± 0.14 | kept | 0.1 |',
    '| b0-002, b0-003 | finished | 2 | 4 | 0.55 ± 0.49 | validation loss 0.05 above | 0.2 |',
  ]
