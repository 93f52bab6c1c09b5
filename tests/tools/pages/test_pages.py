"""Every row of the pages of results is a command that can be run; the pages are made of files."""

import pathlib

import golden
import pytest

from sparsejax import deploy, launch
from sparsejax.delivery import request
from sparsejax.experiment.outcome import recorded, threshold_options
from tools import fuzz_page, running
from tools.pages import kept, pages, readme
from tools.speed import speed_page

pytestmark = pytest.mark.usefixtures('_from_the_root')

RUNS = pathlib.Path('runs')
ROWS = {
  f'{name}/{entry.label}': entry for name, page in pages.PAGES.items() for entry in page.entries
}


@pytest.mark.parametrize('name', pages.PAGES)
def test_the_rows_of_a_page_have_names_of_their_own(name):
  labels = [entry.label for entry in pages.PAGES[name].entries]
  assert len(set(labels)) == len(labels)


@pytest.mark.parametrize('row', [row for row, entry in ROWS.items() if entry.config])
def test_a_row_is_a_config_with_fields_that_it_has(row):
  entry = ROWS[row]
  program, *flags = running.command_of(entry, 3, RUNS, 'data')
  assert pathlib.Path(program).exists()
  settings, own = launch.read(flags)
  assert settings['seed'] == 3
  assert settings['data']['dir'] == str(pathlib.Path('data').absolute())
  assert own.workdir == RUNS.absolute() / entry.label / 'seed3'


@pytest.mark.parametrize('row', [row for row, entry in ROWS.items() if entry.deploys])
def test_a_row_that_deploys_names_one_that_trains(row):
  entry, page = ROWS[row], row.partition('/')[0]
  flag, module, *flags = running.command_of(entry, 0, RUNS, None)
  assert (flag, module) == ('-m', 'sparsejax.deploy')
  arguments = deploy._arguments(flags)
  assert arguments.run == RUNS.absolute() / entry.deploys / 'seed0'
  assert arguments.workdir == RUNS.absolute() / entry.label / 'seed0'
  assert not ROWS[f'{page}/{entry.deploys}'].deploys
  assert set(entry.seeds) <= set(ROWS[f'{page}/{entry.deploys}'].seeds)
  kept_of = kept.RESULTS / page / entry.deploys / 'seed0'
  config = recorded.restore_tuples(kept.read(kept_of / 'config.json'))
  given = {'threshold': arguments.threshold, 'thresholds': arguments.thresholds}
  changed = threshold_options.change(config, kept.read(kept_of / 'summary.json'), **given)
  own = changed[config['layers']]['thresholds']
  assert set(own) <= set(kept.read(kept_of / 'summary.json')['layers'])
  assert all(isinstance(value, float) for value in own.values())


@pytest.mark.parametrize('row', [row for row, entry in ROWS.items() if entry.ships])
def test_a_row_that_ships_names_one_that_trains(row):
  entry, page = ROWS[row], row.partition('/')[0]
  flag, module, *flags = running.command_of(entry, 0, RUNS, 'data')
  assert (flag, module) == ('-m', 'sparsejax.ship')
  options = request.read(flags)
  assert options.run == RUNS.absolute() / entry.ships / 'seed0'
  assert options.out == RUNS.absolute() / entry.label / 'seed0'
  assert options.data_dir == str(pathlib.Path('data').absolute())
  trained = ROWS[f'{page}/{entry.ships}']
  assert trained.config
  assert set(entry.seeds) <= set(trained.seeds)


@pytest.mark.parametrize('name', pages.PAGES)
def test_a_page_is_what_is_made_of_its_files(name):
  folder = kept.RESULTS / name
  drawn = [figure for figure in readme.TITLES if (folder / figure).exists()]
  assert readme.text_of(name, drawn) == (folder / 'README.md').read_text()


def test_the_page_of_speeds_is_what_is_made_of_its_files():
  found = {path.stem: kept.read(path) for path in sorted(speed_page.FOLDER.glob('*.json'))}
  assert speed_page.text_of(found) == (speed_page.FOLDER / 'README.md').read_text()


def test_the_page_of_what_was_tried_is_what_is_made_of_its_file():
  found = kept.read(fuzz_page.FOLDER / fuzz_page.COUNTS)
  assert fuzz_page.text_of(found) == (fuzz_page.FOLDER / 'README.md').read_text()


def test_no_experiment_has_another_name_than_it_had():
  """A run's directory is named after its hash: under another one it would be trained again."""
  found, before = golden.hashes(), kept.read(golden.HASHES)
  changed = {name for name in before if found.get(name, '') != before[name]}
  assert not changed
  assert set(found) == set(before), 'add the new ones: tests/helpers/golden.py'
