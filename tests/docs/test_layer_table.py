"""Every cell of docs/layers.md is what a computation in NumPy says, and stands there."""

import re

import layer_table
import pytest
from layer_cases import LIBRARIES, ROWS

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


@pytest.mark.parametrize('row', ROWS)
@pytest.mark.parametrize('library', LIBRARIES)
def test_each_row_stands_in_the_page(library, row):
  cells = [layer_table.cell(row, library, column) for column in layer_table.COLUMNS]
  section = layer_table.PAGE.read_text().partition(f'## {library}\n')[2].partition('##')[0]
  [line] = re.findall(rf'^\| {re.escape(row)} \| (.*) \|$', section, re.MULTILINE)
  assert line.split(' | ') == cells, f'python {layer_table.__name__}.py in tests/ writes the page'


def test_the_page_has_these_rows_and_columns_alone():
  text = layer_table.PAGE.read_text()
  headings = re.findall(r'^\| layer \| (.*) \|$', text, re.MULTILINE)
  assert headings == [' | '.join(layer_table.COLUMNS)] * len(LIBRARIES)
  assert len(re.findall(r'^\| (?!layer )', text, re.MULTILINE)) == len(ROWS) * len(LIBRARIES)
