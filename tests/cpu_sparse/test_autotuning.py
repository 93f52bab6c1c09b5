"""The implementation of each layer: the fastest, a forced one, or a fallback without a compiler."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.cpu_sparse import autotuning, compiling, kernel, sparse_apply

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


@pytest.fixture
def rank(monkeypatch):
  """Returns a function that replaces timings by a ranking, the fastest name first."""

  def choose(*order):
    monkeypatch.setattr(
      autotuning, 'measure', lambda calls: {name: 1.0 + order.index(name) for name in calls}
    )

  return choose


@pytest.fixture
def no_compiler(monkeypatch):
  monkeypatch.delenv('CXX', raising=False)
  monkeypatch.setattr(compiling.shutil, 'which', lambda name: None)
  monkeypatch.setattr(compiling, 'library', compiling.library.__wrapped__)
  monkeypatch.setattr(kernel, 'register', kernel.register.__wrapped__)
  autotuning._warn_once.cache_clear()


def function(params, x):
  return jax.nn.relu(x @ params['sparse']) @ params['full']


def params():
  rng = np.random.default_rng(0)
  sparse = rng.normal(size=(12, 8)) * (rng.random((12, 8)) < 0.2)
  return {'sparse': jnp.asarray(sparse, jnp.float32), 'full': jnp.ones((8, 4))}


def made(batch):
  x = np.random.default_rng(1).normal(size=(batch, 12)).astype(np.float32)
  found = sparse_apply(function, params(), x)
  np.testing.assert_allclose(found(x), function(params(), x), atol=1e-5)
  return found


def implementations(found):
  return {layer.name: layer.implementation for layer in found.layers}


@pytest.fixture
def has_kernel():
  try:
    kernel.register()
  except compiling.Unavailable as error:
    pytest.skip(str(error))


@pytest.mark.usefixtures('has_kernel')
def test_the_fastest_implementation_of_each_layer(rank):
  rank('sparse', 'kernel', 'dense')
  found = made(4)
  assert implementations(found) == {'sparse': 'kernel', 'full': 'dense'}
  first, second = found.layers
  assert first.seconds == {'kernel': 2.0, 'dense': 3.0}
  assert (first.shape, first.image) == ((8, 12, 1, 1), (12, 1, 1, 4))
  assert second.sparsity == 0.0
  assert not second.seconds  # layers without zeros are not timed
  assert found.seconds == {'sparse': 1.0, 'dense': 3.0}


@pytest.mark.usefixtures('has_kernel')
def test_a_function_slower_than_dense_stays_dense(rank):
  rank('kernel', 'dense', 'sparse')
  found = made(4)
  assert implementations(found) == {'sparse': 'dense', 'full': 'dense'}
  assert found.seconds['sparse'] > found.seconds['dense']


@pytest.mark.usefixtures('has_kernel')
def test_a_layer_slower_than_dense_stays_dense(rank):
  rank('dense', 'kernel')
  found = made(4)
  assert implementations(found) == {'sparse': 'dense', 'full': 'dense'}
  assert not found.seconds


@pytest.mark.usefixtures('no_compiler')
@pytest.mark.parametrize(('batch', 'implementation'), [(1, 'dense'), (63, 'dense'), (64, 'bcsr')])
def test_bcsr_is_the_fallback_for_large_batches(rank, caplog, batch, implementation):
  rank('sparse', 'bcsr', 'dense')
  with caplog.at_level(logging.WARNING):
    assert implementations(made(batch)) == {'sparse': implementation, 'full': 'dense'}
    made(batch)
  [said] = caplog.messages
  assert said == (
    'sparse kernels fall back to BCSR, or dense where that is faster: no C++ compiler is found: '
    'install g++ or clang++, or set CXX to one'
  )


@pytest.mark.usefixtures('no_compiler')
def test_a_forced_kernel_must_be_available(monkeypatch):
  monkeypatch.setenv(autotuning.VARIABLE, 'kernel')
  with pytest.raises(ValueError, match='SPARSEJAX_CPU_SPARSE=kernel needs the kernel: no C'):
    made(2)


@pytest.mark.parametrize('implementation', ['bcsr', 'dense'])
def test_a_forced_implementation_is_not_timed(monkeypatch, implementation):
  monkeypatch.setenv(autotuning.VARIABLE, implementation)
  monkeypatch.setattr(autotuning, 'measure', None)
  found = made(2)
  assert implementations(found) == {'sparse': implementation, 'full': implementation}
  assert not found.seconds


def test_an_unknown_implementation_is_rejected(monkeypatch):
  monkeypatch.setenv(autotuning.VARIABLE, 'fast')
  with pytest.raises(ValueError, match='SPARSEJAX_CPU_SPARSE=fast must be kernel, bcsr or dense'):
    made(2)


def test_other_backends_than_cpu_are_dense(monkeypatch, caplog):
  autotuning._warn_once.cache_clear()
  monkeypatch.setattr(autotuning.jax, 'default_backend', lambda: 'gpu')
  assert not autotuning.is_kernel_available()
  assert caplog.messages == ['sparse_apply is for CPU, not gpu: layers stay dense']


def test_every_call_is_measured():
  calls = []

  def call(name):
    return lambda: calls.append(name) or jnp.zeros(())

  found = autotuning.measure({'a': call('a'), 'b': call('b')})
  assert set(found) == {'a', 'b'}
  assert min(found.values()) > 0
  assert {*calls} == {'a', 'b'}
