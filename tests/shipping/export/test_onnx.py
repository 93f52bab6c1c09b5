"""A network as ONNX: onnxruntime answers as the network does, in any batch size."""

import importlib.util
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import models
from sparsejax.shipping import export
from sparsejax.shipping.export.onnx import PACKAGES, session

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

needs_extra = pytest.mark.skipif(
  not all(map(importlib.util.find_spec, PACKAGES)), reason='needs the extra onnx'
)


@needs_extra
@pytest.mark.parametrize(
  ('name', 'width', 'shape'),
  [
    ('lenet300', 4, (4, 4, 1)),
    ('lenet5', 2, (16, 16, 1)),  # pooling
    ('resnet20', 2, (8, 8, 3)),  # residual sums
    ('mobilenet', 4, (8, 8, 3)),  # groups
  ],
)
def test_outputs_equal_those_of_the_network_at_any_batch_size(tmp_path, name, width, shape):
  model = models.create(name, width=width)
  variables = model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)

  def function(variables, images):
    return model.apply(variables, images, train=False)

  like = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  export.onnx(tmp_path / 'model', function, variables, like)
  images = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
  (found,) = session(tmp_path / 'model')(images)
  wanted = jax.jit(function)(variables, images)
  np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@needs_extra
def test_pytrees_are_flattened_in_order(tmp_path):
  def function(params, x, more):
    return {'sum': x @ params['kernel'] + more['bias'], 'chosen': jnp.argmax(x, -1)}

  inputs = np.ones((2, 3), np.float32), {'bias': np.zeros((2, 4), np.float32)}
  params = {'kernel': np.ones((3, 4), np.float32)}
  export.onnx(tmp_path / 'model', function, params, *inputs)
  chosen, sums = session(tmp_path / 'model')(inputs[0], inputs[1]['bias'])
  assert chosen.tolist() == [0, 0]
  assert sums.tolist() == [[3.0] * 4] * 2


@needs_extra
def test_a_rejected_model_does_not_replace_an_older_one(tmp_path):
  (tmp_path / 'model').write_text('older')
  with pytest.raises(OSError, match=r'onnxruntime refuses .*/model: ') as caught:
    export.onnx(tmp_path / 'model', lambda p, x: jnp.fft.fft(x).real * p, 1.0, np.ones((2, 8)))
  assert '\n' not in str(caught.value)
  assert [path.read_text() for path in tmp_path.iterdir()] == ['older']


@needs_extra
def test_an_unsupported_function_is_reported_in_one_line(tmp_path):
  def function(params, x):
    return jax.pure_callback(np.sin, x, x) * params

  with pytest.raises(ValueError, match='must be one that jax2onnx can convert: ') as caught:
    export.onnx(tmp_path / 'model', function, 1.0, np.ones((2, 8), np.float32))
  assert '\n' not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_reported():
  program = """
import sys
sys.modules['jax2onnx'] = None
from sparsejax.shipping import export
export.onnx('model', lambda p, x: x, {}, [1.0])
"""
  done = subprocess.run(
    [sys.executable, '-c', program], capture_output=True, text=True, check=False
  )
  line = "the package jax2onnx is not installed: pip install 'sparsejax[onnx]'"
  assert done.stderr.splitlines()[-1] == f'ModuleNotFoundError: {line}'
