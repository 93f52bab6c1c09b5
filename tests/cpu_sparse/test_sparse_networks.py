"""Networks of this package with pruned weights have the same answers at every batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import models
from sparsejax.cpu_sparse import compiling, kernel, sparse_apply
from sparsejax.cpu_sparse.autotuning import VARIABLE
from sparsejax.internal.answers import apart
from sparsejax.sparsity.leaves import tree

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def pruned(variables):
  """Returns random variables: kernels of sparsity 0.9, and other leaves near 0 or 1."""
  rng = np.random.default_rng(0)

  def of_leaf(path, leaf):
    if leaf.ndim < 2:
      around = 1.0 if path.endswith(('var', 'scale')) else 0.0
      return (around + 0.3 * rng.uniform(-1, 1, leaf.shape)).astype(np.float32)
    kept = rng.normal(size=leaf.shape) * (rng.random(leaf.shape) < 0.1)
    return (kept / max(np.sqrt((kept**2).mean() * np.prod(leaf.shape[:-1])), 1e-3)).astype('f')

  named = tree.named_leaves(variables)
  leaves = [of_leaf(*item) for item in named.items()]
  return jax.tree.unflatten(jax.tree.structure(variables), leaves)


@pytest.mark.parametrize(
  ('name', 'settings', 'layers'),
  [
    ('lenet300', {}, 3),
    ('lenet5', {}, 4),
    ('vgg16', {'width': 8}, 14),
    ('resnet50', {'width': 4}, 54),
  ],
)
def test_a_pruned_network(monkeypatch, name, settings, layers):
  try:
    kernel.register()
  except compiling.Unavailable as error:
    pytest.skip(str(error))
  monkeypatch.setenv(VARIABLE, 'kernel')
  shape = (28, 28, 1) if 'lenet' in name else (32, 32, 3)
  model = models.create(name, **settings)
  images = jnp.zeros((1, *shape))
  variables = pruned(jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False)))

  def function(variables, x):
    return model.apply(variables, x, train=False)

  x = np.random.default_rng(1).normal(size=(5, *shape)).astype(np.float32)
  made = sparse_apply(function, variables, x)
  assert len(made.layers) == layers
  wanted = jax.jit(function)(variables, x)
  assert np.ptp(wanted) > 0
  for inputs, answers in ((x, wanted), (x[:1], wanted[:1])):
    assert apart(jax.jit(lambda x: made(x))(inputs), answers, 1e-5) is None
