"""The page of shipped networks is made of the kept shipments; rows without any say so."""

import json

import pytest
from run_folders import write_run

from tools.pages import kept
from tools.pages.shipped import page
from tools.pages.shipped.plan import ENTRIES

FIRST = next(entry for entry in ENTRIES if entry.ships)
ENVIRONMENT = {
  'threads': 1,
  'cpus': 2,
  'processor': 'a chip',
  'python': '3.11',
  'versions': {'jax': '0.10'},
  'git_commit': '0123456789',
}


def write_shipped(folder, seed, *, size, before=0.984, after=0.985):
  """A run and its shipment among the kept files."""
  write_run(folder / FIRST.ships / f'seed{seed}', seed=seed, accuracy=before, hash='a')
  times = {'dense_seconds': 0.004, 'shipped_seconds': 0.001}
  found = {
    'shipment': {'hash': 'a', 'seed': seed, 'network': 'b', 'bits': 4, 'epochs': 0},
    'theoretical': {'compression': 12.0, 'speedup': 9.0},
    'bits': 4,
    'bytes': size,
    'dense_bytes': 100 * size,
    'before': {'validation_accuracy': before, 'test_accuracy': before},
    'validation_accuracy': after,
    'test_accuracy': after,
    'latency': {'jax': {'1': times, '128': times}},
    'environment': ENVIRONMENT,
  }
  place = folder / FIRST.label / f'seed{seed}'
  place.mkdir(parents=True)
  (place / 'shipped.json').write_text(json.dumps(found))


@pytest.fixture
def folder(monkeypatch, tmp_path):
  monkeypatch.setattr(page, 'FOLDER', tmp_path)
  return tmp_path


def test_without_runs_every_row_says_so(folder):
  page.write()
  text = (folder / 'README.md').read_text()
  rows = [entry for entry in ENTRIES if entry.ships]
  assert text.count('| not run |') == len(rows) == len({entry.ships for entry in rows})
  assert [path.name for path in folder.iterdir()] == ['README.md']


def test_means_are_of_the_kept_shipments_and_the_figures_are_drawn(folder):
  for seed, size in enumerate((2000, 3000)):
    write_shipped(folder, seed, size=size)
  page.write()
  text = (folder / 'README.md').read_text().replace(' ± 0.00', '')
  error = '1.60 | 1.50 | 0.10'
  assert f'| {FIRST.ships} | 2 | 4 | 2,500 ± 707 | 100.0x | {error} |' in text.replace(
    ' ± 0.00', ''
  )
  assert '1 of 2 cores of a chip, Python 3.11, JAX 0.10: code of 0123456.' in text
  for name in page.AXES:
    assert f'(lenet300_on_mnist.{name}.png)' in text
    assert (folder / f'lenet300_on_mnist.{name}.png').exists()


def test_the_file_to_keep_of_a_shipment_is_its_measurements(monkeypatch, tmp_path):
  source = tmp_path / 'runs' / page.PAGE
  write_shipped(source, 0, size=2000)
  (source / FIRST.label / 'seed0' / 'model.sparse').write_bytes(b'the network')
  monkeypatch.setattr(kept.carry, 'carried', lambda config: config)
  kept.keep(page.PAGE, tmp_path / 'runs', tmp_path / 'results')
  kept_of = tmp_path / 'results' / page.PAGE
  assert [path.name for path in (kept_of / FIRST.label / 'seed0').iterdir()] == ['shipped.json']
  assert (kept_of / FIRST.ships / 'seed0' / 'summary.json').exists()
