"""The page on zeros on CPU, made from invented figures."""

from tools.costs import sparse_cpu_page


def test_a_page_of_figures():
  seconds = {'dense': 0.004, 'sparse': 0.001}
  network = {'network': 'lenet300', 'batch': 1024, 'sparsity': 0.982, 'seconds': seconds}
  rows = [
    {'sparsity': 0.5, 'seconds': {'dense': 1.0, 'kernel': 2.0}},
    {'sparsity': 0.9, 'seconds': {'dense': 3.0, 'kernel': 2.0}},
  ]
  report = {
    'environment': {'processor': 'AMD EPYC'},
    'cores': 1,
    'networks': [{**network, 'speedup': 4.0, 'spread': [3.5, 4.25], 'rounds': 7}],
    'layers': [{'kernel': [3, 3, 8, 16], 'image': [4, 4, 8], 'batch': 16, 'rows': rows}],
  }
  lines = sparse_cpu_page.text_of([report]).splitlines()
  assert '| lenet300 | 1,024 | 98.2 % | 4 | 1 | 4.00 | 3.50 to 4.25 | 7 |' in lines
  assert '| 3x3x8x16 over 4x4 | 16 | 0.50 | 1.50 | 70 % |' in lines
  assert '## 1 of the cores of AMD EPYC' in lines
