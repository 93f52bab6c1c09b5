"""The programs of docs/shipping.md run as they stand, on a network that was shipped."""

import importlib.util
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from sparsejax import models, shipping
from sparsejax.experiment.machine import files
from sparsejax.shipping import export
from sparsejax.shipping.export.onnx import PACKAGES

pytestmark = pytest.mark.usefixtures('compiling_is_quick')
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'shipping.md'
SCALING = {'mean': [0.25], 'std': [0.5]}
MODEL = models.create('lenet300', 10, width=16)


@pytest.fixture
def network(tmp_path, monkeypatch):
  """A network of three quarters zeros, in the folder SHIPPED of the current one."""
  images = np.zeros((1, 28, 28, 1), np.float32)
  variables = MODEL.init(jax.random.key(0), images, train=False)
  variables = jax.tree.map(lambda leaf: leaf * (leaf > np.quantile(leaf, 0.75)), variables)
  monkeypatch.chdir(tmp_path)
  pathlib.Path('SHIPPED').mkdir()
  settings = {'num_classes': 10, 'width': 16, 'widths': {}}
  shipping.save(
    'SHIPPED/model.sparse', variables, model='lenet300', settings=settings, scaling=SCALING
  )
  pathlib.Path('SHIPPED', files.SHIPPED).write_text(json.dumps({'scaling': SCALING}))
  return variables


def programs():
  """The page's programs: reading, ONNX, skipping zeros."""
  return re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)


def test_the_network_is_read_and_its_zeros_are_skipped(network, capsys):
  read, _, skip = programs()
  names: dict = {}
  exec(read, names)
  pixels = np.random.default_rng(0).random((64, 28, 28, 1))
  wanted = MODEL.apply(network, ((pixels - 0.25) / 0.5).astype(np.float32), train=False)
  np.testing.assert_allclose(names['logits'](pixels), wanted, rtol=1e-5, atol=1e-5)
  exec(skip, names)
  found = names['fast'](((pixels - 0.25) / 0.5).astype(np.float32))
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  assert re.search(r'fc1/kernel \w+ 7\d\.\d % zeros', capsys.readouterr().out)


@pytest.mark.skipif(not all(map(importlib.util.find_spec, PACKAGES)), reason='needs the extra onnx')
def test_another_runtime_gives_the_same_classes(network):
  images = jax.ShapeDtypeStruct((1, 28, 28, 1), np.float32)
  apply = lambda variables, x: MODEL.apply(variables, x, train=False)  # noqa: E731
  export.onnx('SHIPPED/model.onnx', apply, network, images)
  read, other, _ = programs()
  names: dict = {}
  exec(read + other, names)
  pixels = np.random.default_rng(0).random((8, 28, 28, 1))
  assert names['classify'](pixels).tolist() == names['logits'](pixels).argmax(-1).tolist()
