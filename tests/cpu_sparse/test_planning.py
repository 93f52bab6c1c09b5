"""Which way layers take: measured, forced, or what is left without a compiler. Nothing is timed."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.cpu_sparse import compiling, kernel, planning, sparse_apply

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


@pytest.fixture
def rank(monkeypatch):
  """Lets a test say which names are faster than which others that are timed with them."""

  def choose(*order):
    monkeypatch.setattr(
      planning, 'measure', lambda calls: {name: 1.0 + order.index(name) for name in calls}
    )

  return choose


@pytest.fixture
def no_compiler(monkeypatch):
  monkeypatch.delenv('CXX', raising=False)
  monkeypatch.setattr(compiling.shutil, 'which', lambda name: None)
  monkeypatch.setattr(compiling, 'library', compiling.library.__wrapped__)
  monkeypatch.setattr(kernel, 'register', kernel.register.__wrapped__)
  planning._say_once.cache_clear()


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


def ways(found):
  return {layer.name: layer.way for layer in found.layers}


@pytest.fixture
def has_kernel():
  try:
    kernel.register()
  except compiling.Unavailable as error:
    pytest.skip(str(error))


@pytest.mark.usefixtures('has_kernel')
def test_the_fastest_way_of_each_layer(rank):
  rank('sparse', 'kernel', 'dense')
  found = made(4)
  assert ways(found) == {'sparse': 'kernel', 'full': 'dense'}
  first, second = found.layers
  assert first.seconds == {'kernel': 2.0, 'dense': 3.0}
  assert (first.shape, first.image) == ((8, 12, 1, 1), (12, 1, 1, 4))
  assert second.sparsity == 0.0
  assert not second.seconds  # full layers are not worth the time
  assert found.seconds == {'sparse': 1.0, 'dense': 3.0}


@pytest.mark.usefixtures('has_kernel')
def test_a_whole_that_is_slower_than_dense_stays_dense(rank):
  rank('kernel', 'dense', 'sparse')
  found = made(4)
  assert ways(found) == {'sparse': 'dense', 'full': 'dense'}
  assert found.seconds['sparse'] > found.seconds['dense']


@pytest.mark.usefixtures('has_kernel')
def test_dense_where_that_is_faster(rank):
  rank('dense', 'kernel')
  found = made(4)
  assert ways(found) == {'sparse': 'dense', 'full': 'dense'}
  assert not found.seconds


@pytest.mark.usefixtures('no_compiler')
@pytest.mark.parametrize(('batch', 'way'), [(1, 'dense'), (63, 'dense'), (64, 'bcsr')])
def test_without_a_compiler_bcsr_for_many_examples(rank, caplog, batch, way):
  rank('sparse', 'bcsr', 'dense')
  with caplog.at_level(logging.WARNING):
    assert ways(made(batch)) == {'sparse': way, 'full': 'dense'}
    made(batch)
  [said] = caplog.messages
  assert said == (
    'sparse kernels fall back to BCSR, or dense where that is faster: no C++ compiler is found: '
    'install g++ or clang++, or set CXX to one'
  )


@pytest.mark.usefixtures('no_compiler')
def test_a_kernel_that_is_forced_must_be_there(monkeypatch):
  monkeypatch.setenv(planning.FORCED, 'kernel')
  with pytest.raises(ValueError, match='SPARSEJAX_CPU_SPARSE=kernel needs the kernel: no C'):
    made(2)


@pytest.mark.parametrize('way', ['bcsr', 'dense'])
def test_a_forced_way_is_not_timed(monkeypatch, way):
  monkeypatch.setenv(planning.FORCED, way)
  monkeypatch.setattr(planning, 'measure', None)
  found = made(2)
  assert ways(found) == {'sparse': way, 'full': way}
  assert not found.seconds


def test_a_way_that_there_is_not(monkeypatch):
  monkeypatch.setenv(planning.FORCED, 'fast')
  with pytest.raises(ValueError, match='SPARSEJAX_CPU_SPARSE=fast must be kernel, bcsr or dense'):
    made(2)


def test_elsewhere_than_on_cpu_all_is_dense(monkeypatch, caplog):
  planning._say_once.cache_clear()
  monkeypatch.setattr(planning.jax, 'default_backend', lambda: 'gpu')
  assert not planning.available()
  assert caplog.messages == ['sparse_apply is for CPU, not gpu: layers stay dense']


def test_what_is_measured():
  calls = []

  def call(name):
    return lambda: calls.append(name) or jnp.zeros(())

  found = planning.measure({'a': call('a'), 'b': call('b')})
  assert set(found) == {'a', 'b'}
  assert min(found.values()) > 0
  assert {*calls} == {'a', 'b'}
