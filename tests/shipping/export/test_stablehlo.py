"""A network as StableHLO: it answers as before, in any batch size, without this package."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import models
from sparsejax.shipping import export
from sparsejax.shipping.export import batches

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

ALONE = """
import sys
sys.modules['sparsejax'] = None  # whose import then fails
import jax.export, numpy
network = jax.export.deserialize(bytearray(open(sys.argv[1], 'rb').read()))
numpy.save(sys.argv[3], network.call(numpy.load(sys.argv[2])))
"""


def network(name, shape, **settings):
  """A function of a network's variables and images, and the variables."""
  model = models.create(name, **settings)
  variables = model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
  return lambda v, x: model.apply(v, x, train=False), variables


@pytest.mark.parametrize(
  ('name', 'width', 'shape'),
  [('lenet300', 4, (4, 4, 1)), ('lenet5', 2, (16, 16, 1)), ('resnet20', 2, (8, 8, 3))],
)
def test_outputs_equal_those_of_the_network_at_any_batch_size(tmp_path, name, width, shape):
  function, variables = network(name, shape, width=width)
  path, like = tmp_path / 'model', jax.ShapeDtypeStruct((7, *shape), jnp.float32)
  export.stablehlo(path, function, variables, like)
  read = jax.export.deserialize(bytearray(path.read_bytes()))
  assert read.platforms == ('cpu', 'cuda', 'tpu')
  images = jax.random.normal(jax.random.key(1), (5, *shape))
  wanted = jax.jit(function)(variables, images)
  np.testing.assert_allclose(read.call(images), wanted, atol=1e-5 * np.abs(wanted).max())


def test_it_runs_without_this_package(tmp_path):
  function, variables = network('lenet300', (4, 4, 1), width=4)
  images = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
  export.stablehlo(tmp_path / 'model', function, variables, images, platforms=['cpu'])
  np.save(tmp_path / 'in.npy', images)
  files = [str(tmp_path / file) for file in ('model', 'in.npy', 'out.npy')]
  subprocess.run([sys.executable, '-c', ALONE, *files], cwd=tmp_path, check=True)
  np.testing.assert_allclose(
    np.load(files[2]), jax.jit(function)(variables, images), atol=1e-6, rtol=1e-5
  )


def test_pytrees_of_inputs_and_outputs(tmp_path):
  def function(params, x, more):
    return {'sum': x @ params['kernel'] + more['bias'], 'chosen': jnp.argmax(x, -1)}

  inputs = np.ones((2, 3), np.float32), {'bias': np.zeros((2, 4), np.float32)}
  export.stablehlo(tmp_path / 'model', function, {'kernel': np.ones((3, 4))}, *inputs)
  read = jax.export.deserialize(bytearray((tmp_path / 'model').read_bytes()))
  assert read.call(*inputs)['sum'].tolist() == [[3.0] * 4] * 2


@pytest.mark.parametrize(
  ('examples', 'options', 'message'),
  [
    ([], {}, 'the shapes of the examples, none, must each begin with the same batch size'),
    ([np.ones((2, 3)), np.ones((3, 3))], {}, r'\(2, 3\), \(3, 3\), must each begin'),
    ([np.ones(())], {}, r'\(\), must each begin'),
    ([np.ones((0, 3))], {}, r'\(0, 3\), must each begin'),
    ([np.ones((2, 3))], {'platforms': ['cuda']}, "must be a list of .* with 'cpu' among them"),
    ([np.ones((2, 3))], {'platforms': 'cpu'}, "platforms='cpu' must be a list of"),
    ([np.ones((2, 3))], {'platforms': ['cpu', 'abacus']}, 'must be a list of cpu, cuda'),
    ([np.ones((2, 4))], {}, 'the function must take batches of any size: '),
  ],
)
def test_invalid_exports_are_rejected(tmp_path, examples, options, message):
  def function(params, *inputs):
    return inputs[0] @ params

  with pytest.raises(ValueError, match=message) as caught:
    export.stablehlo(tmp_path / 'model', function, np.ones((3, 1)), *examples, **options)
  assert '\n' not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_a_function_of_one_batch_size_is_rejected(tmp_path):
  def function(params, x):
    return jnp.zeros(2) + params if x.shape[0] > 2 else x

  with pytest.raises(ValueError, match='the function must take batches of any size'):
    export.stablehlo(tmp_path / 'model', function, 1.0, np.ones((2, 3)))


def test_a_file_with_other_outputs_does_not_replace_an_older_one(tmp_path):
  calls = []

  def function(params, x):
    calls.append(x)
    return x * params * len(calls)

  (tmp_path / 'model').write_text('older')
  with pytest.raises(OSError, match='model was not written: read back, its answers differ by'):
    export.stablehlo(tmp_path / 'model', function, 1.0, np.ones((2, 3)))
  assert [path.read_text() for path in tmp_path.iterdir()] == ['older']


@pytest.mark.parametrize(
  ('found', 'reason'), [([1.0, 2.25], 'differ by 0.25, where they spread by 0.5'), ([1.0], 'shape')]
)
def test_outputs_of_other_values_or_shapes_are_refused(found, reason):
  wanted = np.array([1.0, 2.0])
  batches.check_close('file', wanted + 1e-6, wanted, 1e-5)
  with pytest.raises(OSError, match=f'file was not written: read back, its answers .*{reason}'):
    batches.check_close('file', np.array(found), wanted, 1e-5)


def test_examples_that_are_all_zero_are_not_what_is_compared():
  [images, labels] = batches.resize([np.zeros((2, 3), np.float32), np.zeros((2,), np.int32)], 4)
  assert images.shape == (4, 3)
  assert len(np.unique(images)) == 12
  assert labels.tolist() == [0, 0, 0, 0]
