"""Convolutions and BatchNorm for CPU in forward mode, on other platforms, and on odd numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax import models, nn
from sparsejax.cpu_conv import choice, convolution, formulations, strips, winograd

pytestmark = [
  pytest.mark.usefixtures('compiling_is_quick'),
  pytest.mark.skipif(jax.default_backend() != 'cpu', reason='elsewhere the formulations are plain'),
]

AROUND = ((1, 1), (1, 1))


# Forward mode


def normalised(x):
  norm = nn.BatchNorm(relu=True, use_running_average=False)
  variables = {
    'params': {'scale': jnp.ones(4), 'bias': jnp.ones(4)},
    'batch_stats': {'mean': jnp.zeros(4), 'var': jnp.ones(4)},
  }
  return norm.apply(variables, x, mutable='batch_stats')[0]


def convolved(x, groups=1):
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 4 // groups, 4))
  return convolution.convolve(x, kernel, groups=groups)


FUNCTIONS = {
  'convolution': convolved,
  'depthwise': functools.partial(convolved, groups=4),
  'batch_norm': normalised,
}


def images(*shape):
  return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_forward_mode_says_where_it_is_to_be_had(name):
  function, x = FUNCTIONS[name], images(2, 5, 6, 4)
  for forward in (lambda: jax.jvp(function, (x,), (x,)), lambda: jax.jacfwd(function)(x)):
    with pytest.raises(TypeError, match=r'within `with sparsejax\.cpu_conv\.choice\.plain\(\):`'):
      forward()
  with pytest.raises(TypeError, match='forward-mode'):  # when it is compiled, in JAX's words
    jax.jit(lambda x: jax.jvp(function, (x,), (x,)))(x)
  with choice.plain():
    _, along = jax.jit(lambda x: jax.jvp(function, (x,), (x,)))(x)
  change = (function(1.01 * x) - function(0.99 * x)) / 0.02
  np.testing.assert_allclose(along, change, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_forward_mode_over_reverse_needs_nothing(name):
  function, x = FUNCTIONS[name], images(2, 5, 6, 4)

  def product():
    gradient = jax.grad(lambda x: jnp.sum(function(x) ** 3))
    return jax.jit(lambda x: jax.jvp(gradient, (x,), (jnp.cos(x),))[1])(x)

  ours = product()
  with choice.plain():
    theirs = product()
  np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


def test_another_error_within_comes_as_it_is():
  with pytest.raises(TypeError, match='mine'), choice.reverse_mode():
    raise TypeError('mine')


# Other platforms


def step_of(name):
  """The gradients of a small network in training, and what they are taken of."""
  model = models.create(name, width=32)
  x = jnp.zeros((2, 16, 16, 3))
  shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), x)
  variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)

  def step(variables, x):
    def loss(params):
      variables_of = {**variables, 'params': params}
      return jnp.sum(model.apply(variables_of, x, train=True, mutable='batch_stats')[0])

    return jax.grad(loss)(variables['params'])

  return jax.jit(step), variables, x


@pytest.mark.parametrize('name', ['resnet20', 'mobilenet'])
def test_a_step_lowered_for_a_gpu_has_the_convolutions_that_a_gpu_gets(name):
  def convolutions(platform):
    step, *arguments = step_of(name)
    lowered = step.trace(*arguments).lower(lowering_platforms=(platform,))
    return lowered.as_text().count('stablehlo.convolution')

  on_cpu, on_gpu = convolutions('cpu'), convolutions('cuda')
  with choice.plain():
    plain = convolutions('cuda')
  assert on_gpu == plain
  assert on_cpu < plain


def test_an_export_for_a_gpu_is_made_on_cpu():
  step, *arguments = step_of('resnet20')
  exported = jax.export.export(step, platforms=['cuda'])(*arguments)
  assert exported.platforms == ('cuda',)
  assert 'stablehlo.convolution' in exported.mlir_module()


# NaN, infinity and outliers


def seen(formulation, value, *, tap=1.0, width=8):
  """The outputs over ones of which the pixel (3, 3) is something else, by a kernel of ones."""
  x = jnp.ones((1, 8, width, 1)).at[0, 3, 3].set(value)
  kernel = jnp.ones((3, 3, 1, 1)).at[1, 1].set(tap)
  return np.asarray(jax.jit(formulation, static_argnums=(2, 3))(x, kernel, (1, 1), AROUND))[
    0, ..., 0
  ]


def around_the_pixel(columns=(2, 5)):
  """Which outputs are in the rows 2 to 4 and in the columns from one to another."""
  places = np.zeros((8, 8), bool)
  places[2:5, columns[0] : columns[1]] = True
  return places


def test_a_nan_is_in_what_sees_it_and_by_strips_in_its_strips():
  np.testing.assert_array_equal(np.isnan(seen(formulations.direct, np.nan)), around_the_pixel())
  np.testing.assert_array_equal(np.isnan(seen(winograd.winograd, np.nan)), around_the_pixel())
  # Four outputs a strip: the columns 2 and 3 are in the first, 4 in the second.
  np.testing.assert_array_equal(np.isnan(seen(strips.strips, np.nan)), around_the_pixel((0, 8)))


def test_an_infinity_becomes_nan_in_the_same_places():
  direct = seen(formulations.direct, np.inf)
  np.testing.assert_array_equal(np.isposinf(direct), around_the_pixel())
  by_winograd = seen(winograd.winograd, np.inf)
  np.testing.assert_array_equal(~np.isfinite(by_winograd), around_the_pixel())
  assert np.isnan(by_winograd).any()
  by_strips = seen(strips.strips, np.inf)
  np.testing.assert_array_equal(~np.isfinite(by_strips), around_the_pixel((0, 8)))
  np.testing.assert_array_equal(np.isposinf(by_strips), around_the_pixel())


@pytest.mark.parametrize('size', [1e4, 1e6])
def test_an_outlier_under_a_zero_tap_costs_digits_by_winograd_alone(size):
  """At the pixel itself, which the kernel's middle would see; and far from it nothing."""
  x = images(1, 8, 8, 1).at[0, 3, 3].set(size)
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 1)).at[1, 1].set(0)
  exact = np.sum(np.float64(x[0, 2:5, 2:5, 0]) * np.float64(kernel[..., 0, 0]))

  def output(formulation):
    return jax.jit(formulation, static_argnums=(2, 3))(x, kernel, (1, 1), AROUND)[0, ..., 0]

  direct, by_strips, by_winograd = map(
    output, (formulations.direct, strips.strips, winograd.winograd)
  )
  np.testing.assert_allclose([direct[3, 3], by_strips[3, 3]], exact, atol=5e-6)
  error = abs(by_winograd[3, 3] - exact) / (size * jnp.max(jnp.abs(kernel)))
  assert 1e-9 < error < 2e-7
  np.testing.assert_allclose(by_winograd[6:], direct[6:], atol=5e-6)


def test_winograd_overflows_where_its_sums_of_pixels_do():
  """Means of nine equal pixels: of a third of the largest number sums of four are infinite."""
  most = float(jnp.finfo(jnp.float32).max)

  def mean(formulation, value):
    x, kernel = jnp.full((1, 4, 4, 1), value), jnp.full((3, 3, 1, 1), 1 / 9)
    return formulation(x, kernel, (1, 1), ((0, 0), (0, 0)))

  assert bool(jnp.all(jnp.isfinite(mean(formulations.direct, most / 3))))
  assert not bool(jnp.all(jnp.isfinite(mean(winograd.winograd, most / 3))))
  assert bool(jnp.all(jnp.isfinite(mean(winograd.winograd, most / 8))))
