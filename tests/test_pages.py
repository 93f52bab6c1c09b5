"""Every row of the pages of results is a command that can be run, and its files have a place."""

import pathlib

import pages
import pytest
import reproduce

import launch
from sparsejax import deploy

pytestmark = pytest.mark.usefixtures('_clean_flags')

RUNS = pathlib.Path('runs')
ROWS = {
  f'{name}/{entry.label}': entry for name, page in pages.PAGES.items() for entry in page.entries
}


@pytest.mark.parametrize('name', pages.PAGES)
def test_the_rows_of_a_page_have_names_of_their_own(name):
  labels = [entry.label for entry in pages.PAGES[name].entries]
  assert len(set(labels)) == len(labels)


@pytest.mark.parametrize('row', [row for row, entry in ROWS.items() if not entry.deploys])
def test_a_row_is_a_config_with_fields_that_it_has(row):
  entry = ROWS[row]
  program, *flags = reproduce.command_of(entry, 3, RUNS, 'data')
  assert pathlib.Path(program).exists()
  launch.read(['launch.py', *flags])
  settings = launch.resolve()
  assert settings['seed'] == 3
  assert settings['data']['dir'] == str(pathlib.Path('data').absolute())
  assert launch.WORKDIR.value == str(RUNS.absolute() / entry.label / 'seed3')


@pytest.mark.parametrize('row', [row for row, entry in ROWS.items() if entry.deploys])
def test_a_row_that_deploys_names_one_that_trains(row):
  entry, page = ROWS[row], row.partition('/')[0]
  flag, module, *flags = reproduce.command_of(entry, 0, RUNS, None)
  assert (flag, module) == ('-m', 'sparsejax.deploy')
  arguments = deploy._arguments(flags)
  assert arguments.run == RUNS.absolute() / entry.deploys / 'seed0'
  assert arguments.workdir == RUNS.absolute() / entry.label / 'seed0'
  assert not ROWS[f'{page}/{entry.deploys}'].deploys
  assert set(entry.seeds) <= set(ROWS[f'{page}/{entry.deploys}'].seeds)
