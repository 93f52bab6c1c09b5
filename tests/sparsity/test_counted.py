"""Multiply-accumulates of traced programs equal counts by hand, or are refused with a reason."""

import jax
import jax.numpy as jnp
import pytest

import sparsejax

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

# By hand: (7, 4) @ (4, 5) costs 7 * 4 * 5 = 140 multiply-accumulates, and a 3 x 3 convolution of an
# 8 x 8 image from 3 to 4 channels 8 * 8 * 3 * 3 * 3 * 4 = 6,912. A kernel of zeros has none active.

ROWS, ZERO, ONES = jnp.ones((7, 4)), {'w': jnp.zeros((4, 5))}, {'w': jnp.ones((4, 5))}
IMAGE, WINDOW = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
NUMBERS = ('NHWC', 'HWIO', 'NHWC')


def _convolve(image, kernel, **options):
  return jax.lax.conv_general_dilated(
    image, kernel, (1, 1), 'SAME', dimension_numbers=NUMBERS, **options
  )


def _passed_on(x):
  """Carries (0, 0) to (0, x): x reaches the first part in the second iteration only."""
  start = jnp.zeros((4, 4)), jnp.zeros((4, 4))
  return jax.lax.scan(lambda carry, _: ((carry[1], carry[1] + x[:4]), None), start, length=3)[0]


def _doubled(x):
  return jax.lax.scan(lambda carry, row: (carry, 2 * row), 0.0, x)[1]


def _of_both(x, kernel):
  """Computes (q @ k.T) @ x: 7 x 7 sums of 4 products each, twice."""
  queries, keys = jnp.split(x @ kernel, 2, -1)
  return queries @ keys.T @ x


def _in_stages(x, kernels):
  return _through(_through(x, kernels[:1]), kernels[1:])


def _through(x, kernels):
  return jax.lax.scan(lambda x, w: (x @ w, None), x, kernels)[0]


COUNTED = {  # function, parameters, examples, (macs, active_macs, products without a parameter)
  'a mask from outside': (lambda p, x, m: x @ (p['w'] * m), ZERO, (ROWS, ZERO['w']), (140, 0, 0)),
  'a choice by data': (
    lambda p, x: x @ jnp.where(x.sum(0)[:, None] > 0, p['w'], 0),
    ZERO,
    (ROWS,),
    (140, 0, 0),
  ),
  'a branch by data': (
    lambda p, x: x @ jax.lax.cond(x.sum() > 0, lambda w: w, lambda w: 2 * w, p['w']),
    ZERO,
    (ROWS,),
    (140, 0, 0),
  ),
  'one of two alike branches': (
    lambda p, x: jax.lax.cond(x.sum() > 0, lambda x: x @ p['w'], lambda x: -x @ p['w'], x),
    ONES,
    (ROWS,),
    (140, 140, 0),
  ),
  'a norm of weights': (
    lambda p, x: x @ (p['w'] * (p['g'] / jnp.linalg.norm(p['w'], axis=0))[None]),
    ONES | {'g': jnp.ones(5)},
    (ROWS,),
    (140, 140, 0),
  ),
  'a frozen layer': (lambda p, x: x @ jnp.ones((4, 4)) @ p['w'], ZERO, (ROWS,), (252, 112, 112)),
  'a masked convolution': (
    lambda p, x, m: _convolve(x, p['w'] * m),
    {'w': WINDOW},
    (IMAGE, WINDOW),
    (6912, 6912, 0),
  ),
  'a convolution by data': (
    lambda p, x, k: _convolve(x, k) @ p['w'],
    ONES,
    (IMAGE, WINDOW),
    (8192, 8192, 6912),
  ),
  'a grouped transposed convolution': (
    lambda p, x: jax.lax.conv_general_dilated(
      x, p['w'], (1, 1), ((1, 1), (1, 1)), (2, 2), dimension_numbers=NUMBERS, feature_group_count=2
    ),
    {'w': jnp.ones((2, 2, 2, 6))},
    (jnp.ones((1, 3, 3, 4)),),
    (9 * 4 * 4 * 6 // 2, 9 * 4 * 4 * 6 // 2, 0),
  ),
  'a barrier': (
    lambda p, x: x @ jax.lax.optimization_barrier((p['w'], p['v']))[1],
    ZERO | {'v': jnp.ones((4, 5))},
    (ROWS,),
    (140, 140, 0),
  ),
  'a learned token': (
    lambda p, x: (p['probe'][0] @ p['w']) + x @ p['w'],
    {'w': jnp.zeros((4, 5)), 'probe': jnp.ones((1, 1, 4))},
    (ROWS,),
    (160, 0, 0),
  ),
  'data that a loop carries to its second iteration': (
    lambda p, x: _passed_on(x)[0] @ _passed_on(x)[0] @ (x @ p['w'])[:4],
    ONES,
    (ROWS,),
    (140 + 64 + 80, 140 + 64 + 80, 64 + 80),
  ),
  'the rows that a scan makes': (
    lambda p, x: _doubled(x).T @ _doubled(x) @ p['w'],
    ONES,
    (ROWS,),
    (112 + 80, 112 + 80, 112),
  ),
  'a product that is not used': (
    lambda p, x: jax.jit(lambda x: (x @ p['w'], x @ p['aux']))(x)[0],
    ZERO | {'aux': jnp.ones((4, 100))},
    (ROWS,),
    (140, 0, 0),
  ),
  'queries and keys in the kernels of a stack': (
    lambda p, x: jax.lax.scan(lambda x, w: (_of_both(x, w), None), x, p['w'])[0],
    {'w': jnp.ones((3, 4, 8))},
    (ROWS,),
    (3 * 7 * 32 + 3 * 7 * 7 * 8, 3 * 7 * 32 + 3 * 7 * 7 * 8, 3 * 7 * 7 * 8),
  ),
  'both halves': (
    lambda p, x: x[:, :2] @ p['w'][:2] + x[:, 2:] @ p['w'][2:],
    ONES,
    (ROWS,),
    (140, 140, 0),
  ),
  'a stack that runs twice': (
    lambda p, x: _through(_through(x, p['w']), p['w']),
    {'w': jnp.ones((3, 4, 4))},
    (ROWS,),
    (2 * 3 * 7 * 16, 2 * 3 * 7 * 16, 0),
  ),
  'layers by fixed indices, however they are written': (
    lambda p, x: (
      x
      @ jax.lax.dynamic_index_in_dim(p['w'], 2, keepdims=False)
      @ jnp.take(p['w'], 1, axis=0)
      @ jax.jit(lambda i: p['w'][i])(0)
    ),
    {'w': jnp.ones((3, 4, 4))},
    (ROWS,),
    (3 * 7 * 16, 3 * 7 * 16, 0),
  ),
  'the layers of a stack by slices of slices': (
    lambda p, x: x @ p['w'][:2][0] @ p['w'][:2][1] @ p['w'][2],
    {'w': jnp.ones((3, 4, 4))},
    (ROWS,),
    (3 * 7 * 16, 3 * 7 * 16, 0),
  ),
  'a stack in stages, each twice': (
    lambda p, x: _in_stages(_in_stages(x, p['w']), p['w']),
    {'w': jnp.ones((4, 4, 4))},
    (ROWS,),
    (2 * 4 * 7 * 16, 2 * 4 * 7 * 16, 0),
  ),
  'a stack by the iteration of a scan': (
    lambda p, x: jax.lax.scan(lambda x, i: (x @ p['w'][i], None), x, jnp.arange(3))[0],
    {'w': jnp.ones((3, 4, 4))},
    (ROWS,),
    (3 * 7 * 16, 3 * 7 * 16, 0),
  ),
  'a kernel that a style rescales': (
    lambda p, x: x @ (p['w'] * jax.nn.sigmoid(x @ p['style']).mean(0)[:, None]),
    ZERO | {'style': jnp.ones((4, 4))},
    (ROWS,),
    (140 + 112, 112, 0),
  ),
  'scales of the layers of a stack': (
    lambda p, x: jax.lax.scan(lambda x, w: (x @ w[0] * w[1][None], None), x, (p['w'], p['ls']))[0],
    {'w': jnp.ones((3, 4, 4)), 'ls': jnp.ones((3, 4))},
    (ROWS,),
    (3 * 7 * 16, 3 * 7 * 16, 0),
  ),
  'latents': (lambda p, x: p['latents'] @ p['w'], ONES | {'latents': ROWS}, (ROWS,), (140, 140, 0)),
}


@pytest.mark.parametrize('name', COUNTED)
def test_products_are_counted(name):
  function, params, examples, expected = COUNTED[name]
  counts = sparsejax.count_macs(function, params, *examples)
  assert (counts['macs'], counts['active_macs'], counts['products']) == expected


UNCOUNTED = {
  'experts by rows': (
    lambda p, x: jax.lax.ragged_dot(x, p['w'], jnp.array([3, 4])),
    {'w': jnp.ones((2, 4, 5))},
    (ROWS,),
    'an example chooses how often a ragged product applies each kernel',
  ),
  'an expert by number': (
    lambda p, x, i: x @ p['w'][i],
    {'w': jnp.ones((6, 4, 5))},
    (ROWS, jnp.int32(1)),
    'an example chooses which part of a kernel is applied',
  ),
  'experts by number': (
    lambda p, x, i: jnp.einsum('bi,bio->bo', x, p['w'][i]),
    {'w': jnp.ones((6, 4, 5))},
    (ROWS, jnp.zeros(7, jnp.int32)),
    'an example chooses which part of a kernel is applied',
  ),
  'some columns': (
    lambda p, x: x @ p['w'][:, :3],
    ONES,
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'columns by number': (
    lambda p, x: x @ p['w'][:, jnp.array([0, 2])],
    ONES,
    (ROWS,),
    'the program computes which part of a kernel is applied',
  ),
  'all columns by number, one of them twice': (
    lambda p, x: x @ p['w'][:, jnp.array([0, 0, 1, 2, 3])],
    ONES,
    (ROWS,),
    'the program computes which part of a kernel is applied',
  ),
  'layers by an index computed from a counter': (
    lambda p, x: jax.lax.fori_loop(0, 4, lambda i, x: x @ p['w'][i % 2], x),
    {'w': jnp.ones((4, 4, 4))},
    (ROWS,),
    'the program computes which part of a kernel is applied',
  ),
  'half of a stack in every iteration': (
    lambda p, x: jax.lax.fori_loop(0, 2, lambda _, x: _through(x, p['w'][:2]), x),
    {'w': jnp.ones((4, 4, 4))},
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'halves of a stack, one of them three times': (
    lambda p, x: _through(
      jax.lax.fori_loop(0, 3, lambda _, x: _through(x, p['w'][:2]), x), p['w'][2:]
    ),
    {'w': jnp.ones((4, 4, 4))},
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'parts of unlike sizes that are as large as the whole': (
    lambda p, x: x[:, :1] @ p['w'][:1] + x[:, :3] @ p['w'][1:] + x[:, 1:] @ p['w'][1:],
    ONES,
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'unlike layers of a stack': (
    lambda p, x: (x @ p['w'][0]).sum() + (x[:1] @ p['w'][1]).sum(),
    {'w': jnp.ones((2, 4, 5))},
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'one half twice': (
    lambda p, x: jnp.tanh(x @ p['w'][:4]) @ p['w'][:4],
    {'w': jnp.ones((8, 4)).at[4:].set(0)},
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'one half of a kernel in every iteration': (
    lambda p, x: jax.lax.fori_loop(0, 2, lambda i, x: x @ p['w'][:4], x),
    {'w': jnp.ones((8, 4))},
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'one layer of two in every iteration': (
    lambda p, x: jax.lax.fori_loop(0, 2, lambda i, x: x @ p['w'][0], x),
    {'w': jnp.ones((2, 4, 4))},
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'parts that overlap': (
    lambda p, x: x[:, :2] @ p['w'][:2] + x[:, 1:3] @ p['w'][1:3],
    ONES,
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'one layer of three twice, and another': (
    lambda p, x: x @ p['w'][0] @ p['w'][0] @ p['w'][1],
    {'w': jnp.ones((3, 4, 4))},
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'a convolution by shifts': (
    lambda p, x: sum(x[i : i + 4] * p['c'][i][None] for i in range(4)) @ p['w'],
    ONES | {'c': jnp.ones((4, 4))},
    (ROWS,),
    "'c' multiplies activations elementwise",
  ),
  'an elementwise product with an activation': (
    lambda p, x: jax.nn.softmax((x @ x.T) * p['mix']) @ x,
    {'mix': jnp.eye(7)},
    (ROWS,),
    "'mix' multiplies activations elementwise",
  ),
  'an elementwise product and a matrix product': (
    lambda p, x: (x[:, :, None] * p['w'][None]).sum(1) + x @ p['w'],
    ONES,
    (ROWS,),
    "'w' multiplies activations elementwise",
  ),
  'a padded kernel': (
    lambda p, x: x @ jnp.pad(p['w'], ((0, 0), (0, 1))),
    ONES,
    (ROWS,),
    "some weights of 'w' are applied",
  ),
  'a sum of two kernels': (
    lambda p, x: x @ (p['w'] + p['v']),
    ONES | {'v': jnp.ones((4, 5))},
    (ROWS,),
    'a kernel is computed from v and w',
  ),
  'a product of two kernels': (
    lambda p, x: x @ (p['down'] @ p['up']),
    {'down': jnp.ones((4, 2)), 'up': jnp.ones((2, 5))},
    (ROWS,),
    'two parameters are multiplied by each other',
  ),
  'a matrix product written elementwise': (
    lambda p, x: (x[:, :, None] * p['w'][None]).sum(1),
    ONES,
    (ROWS,),
    "'w' multiplies activations elementwise",
  ),
  'a callback to the host': (
    lambda p, x: jax.pure_callback(
      lambda x, w: x @ w, jax.ShapeDtypeStruct((7, 5), jnp.float32), x, p['w']
    ),
    ONES,
    (ROWS,),
    "the primitive 'pure_callback' may hide products",
  ),
  'the condition of a loop': (
    lambda p, x: jax.lax.while_loop(lambda x: (x @ p['w']).sum() < 9, lambda x: x + 1, x),
    ONES,
    (ROWS,),
    'a while loop has products',
  ),
  'a learned image': (
    lambda p, x: _convolve(p['tokens'], p['w']) + x.sum(),
    {'w': WINDOW, 'tokens': IMAGE},
    (ROWS,),
    'the image of a convolution is a parameter',
  ),
  'groups of examples': (
    lambda p, x: _convolve(x, p['w'], batch_group_count=2),
    {'w': WINDOW},
    (jnp.ones((2, 8, 8, 3)),),
    'a convolution has batch_group_count > 1',
  ),
}


@pytest.mark.parametrize('name', UNCOUNTED)
def test_programs_that_cannot_be_counted_are_refused(name):
  function, params, examples, why = UNCOUNTED[name]
  with pytest.raises(ValueError, match=f"multiply-accumulates can't be counted: {why}"):
    sparsejax.count_macs(function, params, *examples)
