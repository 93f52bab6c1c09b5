"""Parameters in a file of safetensors: every bit comes back, under every path."""

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors as package

from sparsejax.shipping import export

DTYPES = ('bool', 'int8', 'uint16', 'int64', 'float16', 'bfloat16', 'float32', 'float64')


def read(path):
  with package.safe_open(path, 'np') as file:
    return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize('dtype', DTYPES)
def test_values_are_restored_to_the_bit(tmp_path, dtype):
  values = np.random.default_rng(0).integers(0, 200, (4, 3)).astype(jnp.dtype(dtype))
  params = {'fc1': [values, values[:0]], 'turned': values.T, 'scalar': values[0, 0]}
  export.safetensors(tmp_path / 'model', params)
  stored = dict(package.deserialize((tmp_path / 'model').read_bytes()))
  assert set(stored) == {'fc1/0', 'fc1/1', 'turned', 'scalar'}
  assert bytes(stored['turned']['data']) == np.ascontiguousarray(values.T).tobytes()
  assert (stored['turned']['shape'], stored['scalar']['shape']) == ([3, 4], [])


def test_others_read_numbers_that_are_not_finite(tmp_path):
  values = np.array([np.nan, -0.0, np.inf], np.float32)
  export.safetensors(tmp_path / 'model', {'kernel': jnp.array(values)})
  _, found = read(tmp_path / 'model')
  assert found['kernel'].tobytes() == values.tobytes()


def test_the_config_is_in_the_metadata(tmp_path):
  config = {'model': 'lenet300', 'widths': {'fc1': 7}, 'config': {'name': 'é', 'chain': ('sgd',)}}
  export.safetensors(tmp_path / 'model', {'kernel': np.ones(3)}, config=config)
  metadata, _ = read(tmp_path / 'model')
  assert metadata['model'] == 'lenet300'
  assert json.loads(metadata['widths']) == {'fc1': 7}
  assert json.loads(metadata['config']) == {'name': 'é', 'chain': ['sgd']}


@pytest.mark.parametrize(
  ('params', 'config', 'message'),
  [
    ({'kernel': np.ones(2, ml_dtypes.int4)}, {}, 'dtypes=int4 must be dtypes of safetensors: '),
    ({'kernel': np.ones(2)}, {'widths': {1, 2}}, r"config\['widths'\] must be what JSON can hold"),
    ({'kernel': np.ones(2)}, {'loss': np.nan}, r"config\['loss'\] must be what JSON can hold"),
    ({'a': {'b': 0}, 'a/b': 1}, {}, "two parameters have the path 'a/b'"),
  ],
)
def test_unsupported_parameters_are_rejected(tmp_path, params, config, message):
  with pytest.raises(ValueError, match=message):
    export.safetensors(tmp_path / 'model', params, config=config)
  assert not list(tmp_path.iterdir())


def test_a_file_with_other_values_does_not_replace_an_older_one(tmp_path, monkeypatch):
  (tmp_path / 'model').write_text('older')
  monkeypatch.setattr(package, 'deserialize', lambda data: [])
  with pytest.raises(OSError, match='model was not written: reading it back gave different values'):
    export.safetensors(tmp_path / 'model', {'kernel': np.ones(3)})
  assert [path.read_text() for path in tmp_path.iterdir()] == ['older']
