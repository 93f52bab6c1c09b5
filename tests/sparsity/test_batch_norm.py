"""Recalibrated BatchNorm averages: the mean of the batches' own moments, for any momentum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from sparsejax import recalibrate_batch_norm

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


class Scaled(nn.Module):
  """Normalises w x, so that the moments that BatchNorm sees follow from w alone."""

  momentum: float

  @nn.compact
  def __call__(self, x, *, train):
    w = self.param('w', nn.initializers.constant(2.0), (1,))
    return nn.BatchNorm(momentum=self.momentum, name='bn')(
      x * w[None], use_running_average=not train
    )


@pytest.mark.parametrize('momentum', [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize('scale', [1.0, 1000.0])
def test_averages_of_flax_become_the_mean_of_the_batches_moments(momentum, scale):
  # w = 2 on 0 and 1, then on 0 and 0.5: means 1 and 0.5, variances 1 and 0.25.
  batches = [scale * jnp.array(b)[:, None] for b in ([0.0, 1.0], [0.0, 0.5])]
  model = Scaled(momentum)
  variables = model.init(jax.random.key(0), batches[0], train=False)

  @jax.jit
  def update(batch_stats, x):
    trained = variables | {'batch_stats': batch_stats}
    return model.apply(trained, x, train=True, mutable='batch_stats')[1]['batch_stats']

  found = recalibrate_batch_norm(update, variables['batch_stats'], batches)['bn']
  np.testing.assert_allclose(found['mean'], [0.75 * scale], rtol=2e-4)
  np.testing.assert_allclose(found['var'], [0.625 * scale**2], rtol=2e-4)


def test_each_average_may_have_a_momentum_of_its_own():
  def update(stats, x, *, momenta):
    return {name: m * stats[name] + (1 - m) * x for name, m in momenta.items()}

  stats = {'fast': jnp.float32(7), 'slow': jnp.float32(-3)}
  momenta = {'fast': 0.1, 'slow': 0.95}
  batches = [jnp.float32(2), jnp.float32(4)]
  found = recalibrate_batch_norm(functools.partial(update, momenta=momenta), stats, batches)
  assert found == {'fast': pytest.approx(3, rel=1e-5), 'slow': pytest.approx(3, rel=1e-5)}


def test_without_a_batch_there_is_nothing_to_average():
  with pytest.raises(ValueError, match='batches is empty'):
    recalibrate_batch_norm(lambda stats, batch: stats, {}, [])
