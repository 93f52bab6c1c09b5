"""Layers as four libraries make them, each with what its axes are, as the table of layers needs it.

Axes are letters: `s` a stack, `p` and `q` positions, a small letter (`h` of a head) an input, a
capital one an output; two letters in parentheses share an axis, the first of them the heads.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

KEY = jax.random.key(0)
HEADS, SHARED, TOKENS, STEPS, LAYERS = 4, 2, 10, 7, 3


@dataclasses.dataclass(frozen=True)
class Case:
  """A network of the layers of one row.

  Attributes:
    function: of (params, example), for an example alone in its batch.
    params: what the library has for parameters.
    example: what the network is applied to.
    kernels: {path: (letters of the axes, how often each weight is applied)}.
    products: the multiply-accumulates of products without a kernel.
    table: an expression for the tables that are chosen by name, '' where there are none.
  """

  function: Callable[..., Any]
  params: Any
  example: Any
  kernels: dict[str, tuple[str, int]]
  products: int = 0
  table: str = ''


# What wraps the layers of each library: (layers in a row, example) -> function and parameters.


def linen(make, example):
  """`make` calls layers of Flax' linen on an example."""

  class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
      return make(x)

  network = Network()
  params = network.init(KEY, example)['params']
  return lambda p, x: network.apply({'params': p}, x, mutable='batch_stats')[0], params


def of_nnx(*layers, call=lambda layer, x: layer(x)):
  static, params, rest = nnx.split(nnx.List(layers), nnx.Param, ...)

  def function(p, x):
    for layer in nnx.merge(static, p, rest, copy=True):
      x = call(layer, x)
    return x

  return function, params


def haiku(make, example):
  network = hk.without_apply_rng(hk.transform(make))
  return network.apply, network.init(KEY, example)


def equinox(*layers, call=lambda layer, x: layer(x)):
  params, static = eqx.partition(list(layers), eqx.is_inexact_array)

  def function(p, x):
    for layer in eqx.combine(p, static):
      x = call(layer, x)
    return x

  return function, params


def rngs():
  return nnx.Rngs(0)


# Rows


def dense(library):
  """8 inputs to 12, 12 to 4."""
  x = jnp.ones((1, 8))
  match library:
    case 'linen':
      built = linen(lambda x: nn.Dense(4)(nn.Dense(12)(x)), x)
      paths = ('Dense_0/kernel', 'Dense_1/kernel')
    case 'NNX':
      built = of_nnx(nnx.Linear(8, 12, rngs=rngs()), nnx.Linear(12, 4, rngs=rngs()))
      paths = ('0/kernel', '1/kernel')
    case 'Haiku':
      built = haiku(lambda x: hk.Linear(4)(hk.Linear(12)(x)), x)
      paths = ('linear/w', 'linear_1/w')
    case _:
      built, x = equinox(eqx.nn.Linear(8, 12, key=KEY), eqx.nn.Linear(12, 4, key=KEY)), x[0]
      paths = ('0/weight', '1/weight')
  letters = 'Oi' if library == 'Equinox' else 'iO'
  return Case(*built, x, dict.fromkeys(paths, (letters, 1)))


def bias_free(library):
  """8 inputs to 12, 12 to 4, without a bias: names alone tell what they are."""
  x = jnp.ones((1, 8))
  match library:
    case 'linen':
      built = linen(lambda x: nn.Dense(4, False)(nn.Dense(12, False)(x)), x)
      paths = ('Dense_0/kernel', 'Dense_1/kernel')
    case 'NNX':
      layers = [nnx.Linear(*sizes, use_bias=False, rngs=rngs()) for sizes in ((8, 12), (12, 4))]
      built, paths = of_nnx(*layers), ('0/kernel', '1/kernel')
    case 'Haiku':
      built = haiku(lambda x: hk.Linear(4, False)(hk.Linear(12, False)(x)), x)
      paths = ('linear/w', 'linear_1/w')
    case _:
      layers = [eqx.nn.Linear(*sizes, False, key=KEY) for sizes in ((8, 12), (12, 4))]
      built, x, paths = equinox(*layers), x[0], ('0/weight', '1/weight')
  letters = 'Oi' if library == 'Equinox' else 'iO'
  return Case(*built, x, dict.fromkeys(paths, (letters, 1)))


def convolutions(library, channels, *sizes):
  """Two convolutions over 8 x 8 pixels, each of (outputs, window, groups, stride)."""
  x = jnp.ones((1, 8, 8, channels))
  inputs = (channels, *(out for out, *_ in sizes[:-1]))

  def names(template):
    return [template.format('' if i == 0 else f'_{i}') for i in range(len(sizes))]

  match library:
    case 'linen':

      def make(x):
        for out, window, groups, stride in sizes:
          x = nn.Conv(out, (window,) * 2, stride, feature_group_count=groups)(x)
        return x

      built, paths = linen(make, x), ['Conv_0/kernel', 'Conv_1/kernel']
    case 'NNX':
      layers = [
        nnx.Conv(a, out, (window,) * 2, stride, feature_group_count=groups, rngs=rngs())
        for a, (out, window, groups, stride) in zip(inputs, sizes, strict=True)
      ]
      built, paths = of_nnx(*layers), ['0/kernel', '1/kernel']
    case 'Haiku':

      def make(x):
        for a, (out, window, groups, stride) in zip(inputs, sizes, strict=True):
          if groups == a > 1:
            x = hk.DepthwiseConv2D(out // a, window, stride)(x)
          else:
            x = hk.Conv2D(out, window, stride, feature_group_count=groups)(x)
        return x

      depthwise = sizes[0][2] == channels > 1
      built = haiku(make, x)
      paths = names('depthwise_conv2_d{}/w' if depthwise else 'conv2_d{}/w')
    case _:
      layers = [
        eqx.nn.Conv2d(a, out, window, stride, padding='SAME', groups=groups, key=KEY)
        for a, (out, window, groups, stride) in zip(inputs, sizes, strict=True)
      ]
      built, x = equinox(*layers), x[0].transpose(2, 0, 1)
      paths = ['0/weight', '1/weight']
  letters = 'Oipq' if library == 'Equinox' else 'pqiO'
  sides, applied = 8, []
  for *_, stride in sizes:
    sides //= stride
    applied.append(sides**2)
  kernels = {path: (letters, n) for path, n in zip(paths, applied, strict=True)}
  return Case(*built, x, kernels)


def convolution(library):
  return convolutions(library, 4, (8, 3, 1, 1), (4, 2, 1, 1))


def strided(library):
  return convolutions(library, 4, (8, 2, 1, 2), (4, 3, 1, 2))


def grouped(library):
  return convolutions(library, 8, (8, 2, 2, 1), (12, 1, 2, 1))


def depthwise(library):
  return convolutions(library, 8, (8, 2, 8, 1), (16, 2, 8, 1))


def transposed(library):
  """4 x 4 pixels of 4 channels to 8 x 8 of 8, to 16 x 16 of 4: zeros between do not count."""
  x = jnp.ones((1, 4, 4, 4))
  match library:
    case 'linen':

      def make(x):
        x = nn.ConvTranspose(8, (2, 2), (2, 2))(x)
        return nn.ConvTranspose(4, (2, 2), (2, 2))(x)

      built, paths = linen(make, x), ('ConvTranspose_0/kernel', 'ConvTranspose_1/kernel')
    case 'NNX':
      built = of_nnx(
        nnx.ConvTranspose(4, 8, (2, 2), (2, 2), rngs=rngs()),
        nnx.ConvTranspose(8, 4, (2, 2), (2, 2), rngs=rngs()),
      )
      paths = ('0/kernel', '1/kernel')
    case 'Haiku':

      def make(x):
        x = hk.Conv2DTranspose(8, 2, 2)(x)
        return hk.Conv2DTranspose(4, 2, 2)(x)

      built = haiku(make, x)
      paths = ('conv2_d_transpose/w', 'conv2_d_transpose_1/w')
    case _:
      built = equinox(
        eqx.nn.ConvTranspose2d(4, 8, 2, 2, key=KEY), eqx.nn.ConvTranspose2d(8, 4, 2, 2, key=KEY)
      )
      x, paths = x[0].transpose(2, 0, 1), ('0/weight', '1/weight')
  letters = {'Haiku': 'pqOi', 'Equinox': 'Oipq'}.get(library, 'pqiO')
  return Case(*built, x, {paths[0]: (letters, 16), paths[1]: (letters, 64)})


def dense_general(library):
  """From the last two of three axes to two of them, and from there to one."""
  x = jnp.ones((1, 4, 6))
  match library:
    case 'linen':

      def make(x):
        x = nn.DenseGeneral((2, 4), axis=(-2, -1))(x)
        return nn.DenseGeneral(8, axis=(-2, -1))(x)

      built, paths = linen(make, x), ('DenseGeneral_0/kernel', 'DenseGeneral_1/kernel')
    case 'NNX':
      built = of_nnx(
        nnx.LinearGeneral((4, 6), (2, 4), axis=(-2, -1), rngs=rngs()),
        nnx.LinearGeneral((2, 4), 8, axis=(-2, -1), rngs=rngs()),
      )
      paths = ('0/kernel', '1/kernel')
    case _:
      return None
  return Case(*built, x, {paths[0]: ('ijOP', 1), paths[1]: ('ijO', 1)})


def attention(library):
  """16 features, 4 heads, 10 tokens."""
  x = jnp.ones((1, TOKENS, 16))
  return attending(library, (x, x), TOKENS)


def cross_attention(library):
  """Of 10 tokens of 16 features to 6 of 12."""
  return attending(library, (jnp.ones((1, TOKENS, 16)), jnp.ones((1, 6, 12))), 6)


def attending(library, example, seen):
  """Of the first of two sequences to the second, which has `seen` tokens."""
  into, out = ('iHO', 'hiO')
  features = example[1].shape[-1]
  match library:
    case 'linen':
      built = linen(lambda x: nn.MultiHeadDotProductAttention(HEADS)(*x), example)
      of = 'MultiHeadDotProductAttention_0/{}/kernel'.format
      names = ('query', 'key', 'value', 'out')
    case 'NNX':
      layer = nnx.MultiHeadAttention(HEADS, 16, in_kv_features=features, decode=False, rngs=rngs())
      built = of_nnx(layer, call=lambda layer, x: layer(*x))
      of, names = '0/{}/kernel'.format, ('query', 'key', 'value', 'out')
    case 'Haiku':

      def make(x):
        init = hk.initializers.VarianceScaling()
        return hk.MultiHeadAttention(HEADS, 4, w_init=init)(x[0], x[1], x[1])

      built, (into, out) = haiku(make, example), ('i(HO)', '(hi)O')
      of, names = 'multi_head_attention/{}/w'.format, ('query', 'key', 'value', 'linear')
    case _:
      layer = eqx.nn.MultiheadAttention(HEADS, 16, features, features, key=KEY)
      built = equinox(layer, call=lambda layer, x: layer(x[0], x[1], x[1]))
      example = tuple(x[0] for x in example)
      into, out = '(HO)i', 'O(hi)'
      of, names = '0/{}_proj/weight'.format, ('query', 'key', 'value', 'output')
  kernels = {of(name): (into, seen) for name in names[1:3]}
  kernels |= {of(names[0]): (into, TOKENS), of(names[3]): (out, TOKENS)}
  return Case(*built, example, kernels, products=2 * TOKENS * seen * 16)


def shared_keys(library):
  """Attention of 4 heads, in which each pair of heads shares one key and one value."""
  if library != 'NNX':
    return None
  x = jnp.ones((1, TOKENS, 16))
  layer = nnx.MultiHeadAttention(HEADS, 16, num_kv_heads=SHARED, decode=False, rngs=rngs())
  kernels = {f'0/{name}/kernel': ('iHO', TOKENS) for name in ('query', 'key', 'value')}
  kernels['0/out/kernel'] = 'hiO', TOKENS
  return Case(*of_nnx(layer), x, kernels, products=2 * TOKENS**2 * 16)


def embedding(library):
  """A table of 12 rows, which is looked up, and a dense layer."""
  tokens = jnp.zeros((1,), jnp.int32)
  match library:
    case 'linen':
      built = linen(lambda t: nn.Dense(4)(nn.Embed(12, 8)(t)), tokens)
      table, path = 'Embed_0/embedding', 'Dense_0/kernel'
    case 'NNX':
      built = of_nnx(nnx.Embed(12, 8, rngs=rngs()), nnx.Linear(8, 4, rngs=rngs()))
      table, path = '0/embedding', '1/kernel'
    case 'Haiku':
      built = haiku(lambda t: hk.Linear(4)(hk.Embed(12, 8)(t)), tokens)
      table, path = 'embed/embeddings', 'linear/w'
    case _:
      built = equinox(eqx.nn.Embedding(12, 8, key=KEY), eqx.nn.Linear(8, 4, key=KEY))
      tokens, (table, path) = tokens[0], ('0/weight', '1/weight')
  letters = 'Oi' if library == 'Equinox' else 'iO'
  return Case(*built, tokens, {table: ('iO', 0), path: (letters, 1)}, table=f'^{table}$')


def norms(library):
  """Dense layers between all normalisations of the library, whose scales are not kernels."""
  x = jnp.ones((1, 4, 8))
  match library:
    case 'linen':

      def make(x):
        x = nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=(-2, -1))(x)
        x = nn.GroupNorm(num_groups=2)(nn.RMSNorm()(nn.Dense(12)(x)))
        return nn.Dense(4)(nn.BatchNorm(use_running_average=False)(x))

      built, paths = linen(make, x), ('Dense_0/kernel', 'Dense_1/kernel')
    case 'NNX':
      built = of_nnx(
        nnx.LayerNorm(8, rngs=rngs()),
        nnx.Linear(8, 12, rngs=rngs()),
        nnx.RMSNorm(12, rngs=rngs()),
        nnx.GroupNorm(12, 2, rngs=rngs()),
        nnx.BatchNorm(12, use_running_average=False, rngs=rngs()),
        nnx.Linear(12, 4, rngs=rngs()),
      )
      paths = ('1/kernel', '5/kernel')
    case 'Haiku':

      def make(x):
        x = hk.LayerNorm((-2, -1), create_scale=True, create_offset=True, param_axis=(-2, -1))(x)
        x = hk.GroupNorm(2)(hk.RMSNorm(-1)(hk.Linear(12)(x)))
        return hk.Linear(4)(x)

      built, paths = haiku(make, x), ('linear/w', 'linear_1/w')
    case _:
      built = equinox(
        eqx.nn.LayerNorm((4, 8)),
        eqx.nn.Linear(8, 12, key=KEY),
        eqx.nn.RMSNorm((4, 12)),
        eqx.nn.GroupNorm(2, 4),
        eqx.nn.Linear(12, 4, key=KEY),
        call=lambda layer, x: jax.vmap(layer)(x) if isinstance(layer, eqx.nn.Linear) else layer(x),
      )
      x, paths = x[0], ('1/weight', '4/weight')
  letters = 'Oi' if library == 'Equinox' else 'iO'
  return Case(*built, x, dict.fromkeys(paths, (letters, 4)))


def lstm(library):
  """8 inputs, 4 units, 7 steps: each matrix is applied at every one of them."""
  x = jnp.ones((1, STEPS, 8))
  match library:
    case 'linen':
      built = linen(lambda x: nn.RNN(nn.OptimizedLSTMCell(4))(x), x)
      paths = [f'OptimizedLSTMCell_0/{a}{gate}/kernel' for a in 'ih' for gate in 'ifgo']
    case 'NNX':
      built = of_nnx(nnx.RNN(nnx.OptimizedLSTMCell(8, 4, rngs=rngs())))
      paths = ['0/cell/dense_i/kernel', '0/cell/dense_h/kernel']
    case 'Haiku':

      def make(x):
        cell = hk.LSTM(4)
        return hk.dynamic_unroll(cell, x[0], cell.initial_state(None))[0]

      built, paths = haiku(make, x), ['lstm/linear/w']
    case _:

      def unroll(cell, x):
        start = jnp.zeros(4), jnp.zeros(4)
        return jax.lax.scan(lambda state, y: (cell(y, state), None), start, x)[0]

      built, x = equinox(eqx.nn.LSTMCell(8, 4, key=KEY), call=unroll), x[0]
      paths = ['0/weight_hh', '0/weight_ih']
  letters = 'Oi' if library == 'Equinox' else 'iO'
  return Case(*built, x, dict.fromkeys(paths, (letters, STEPS)))


def scanned(library):
  """Three blocks, norm, 8 to 16 and back, one after the other."""
  x = jnp.ones((1, 8))
  match library:
    case 'linen':

      class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
          return nn.Dense(8)(nn.relu(nn.Dense(16)(nn.LayerNorm()(x)))), None

      scan = nn.scan(Block, variable_axes={'params': 0}, split_rngs={'params': True}, length=LAYERS)
      built = linen(lambda x: scan(name='blocks')(x, None)[0], x)
      paths = ('blocks/Dense_0/kernel', 'blocks/Dense_1/kernel')
    case 'NNX':

      class Blocks(nnx.Module):
        def __init__(self, rngs):
          self.norm = nnx.LayerNorm(8, rngs=rngs)
          self.up, self.down = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 8, rngs=rngs)

        def __call__(self, x):
          return self.down(nnx.relu(self.up(self.norm(x))))

      blocks = nnx.vmap(Blocks)(rngs().split(LAYERS))
      scan = nnx.scan(lambda block, x: block(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
      built, paths = of_nnx(blocks, call=scan), ('0/down/kernel', '0/up/kernel')
    case 'Haiku':

      def block(x):
        return hk.Linear(8)(jax.nn.relu(hk.Linear(16)(hk.LayerNorm(-1, True, True)(x))))

      def make(x):
        return hk.experimental.layer_stack(LAYERS)(block)(x)

      built = haiku(make, x)
      of = '__layer_stack_no_per_layer/{}/w'.format
      paths = (of('linear'), of('linear_1'))
    case _:

      def make(key):
        return eqx.nn.MLP(8, 8, 16, 1, key=key)

      stack = eqx.filter_vmap(make)(jax.random.split(KEY, LAYERS))
      built, x = equinox(stack, call=one_after_the_other), x[0]
      paths = ('0/layers/0/weight', '0/layers/1/weight')
  letters = 'sOi' if library == 'Equinox' else 'siO'
  return Case(*built, x, dict.fromkeys(paths, (letters, 1)))


def transformer(library):
  """Three blocks one after the other: norm, attention, 16 to 32 and back."""
  x = jnp.ones((1, TOKENS, 16))
  into, out, letters = 'siHO', 'shiO', 'siO'
  names = ('query', 'key', 'value', 'out')
  match library:
    case 'linen':

      class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
          x = nn.MultiHeadDotProductAttention(HEADS, name='attention')(nn.LayerNorm()(x))
          return nn.Dense(16, name='down')(nn.relu(nn.Dense(32, name='up')(x))), None

      scan = nn.scan(Block, variable_axes={'params': 0}, split_rngs={'params': True}, length=LAYERS)
      built = linen(lambda x: scan(name='blocks')(x, None)[0], x)
      of, up, down = 'blocks/attention/{}/kernel', 'blocks/up/kernel', 'blocks/down/kernel'
    case 'NNX':

      class Blocks(nnx.Module):
        def __init__(self, rngs):
          self.norm = nnx.LayerNorm(16, rngs=rngs)
          self.attention = nnx.MultiHeadAttention(HEADS, 16, decode=False, rngs=rngs)
          self.up, self.down = nnx.Linear(16, 32, rngs=rngs), nnx.Linear(32, 16, rngs=rngs)

        def __call__(self, x):
          return self.down(nnx.relu(self.up(self.attention(self.norm(x)))))

      blocks = nnx.vmap(Blocks)(rngs().split(LAYERS))
      scan = nnx.scan(lambda block, x: block(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
      built = of_nnx(blocks, call=scan)
      of, up, down = '0/attention/{}/kernel', '0/up/kernel', '0/down/kernel'
    case 'Haiku':

      def block(x):
        x = hk.LayerNorm(-1, True, True)(x)
        init = hk.initializers.VarianceScaling()
        x = hk.MultiHeadAttention(HEADS, 4, w_init=init, name='attention')(x, x, x)
        return hk.Linear(16, name='down')(jax.nn.relu(hk.Linear(32, name='up')(x)))

      built = haiku(lambda x: hk.experimental.layer_stack(LAYERS)(block)(x), x)
      into, out, names = 'si(HO)', 's(hi)O', ('query', 'key', 'value', 'linear')
      of, up, down = (
        f'__layer_stack_no_per_layer/{name}/w' for name in ('attention/{}', 'up', 'down')
      )
    case _:

      class Layers(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        norm: eqx.nn.LayerNorm
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __call__(self, x):
          x = jax.vmap(self.norm)(x)
          x = jax.nn.relu(jax.vmap(self.up)(self.attention(x, x, x)))
          return jax.vmap(self.down)(x)

      def make(key):
        return Layers(
          eqx.nn.MultiheadAttention(HEADS, 16, key=key),
          eqx.nn.LayerNorm(16),
          eqx.nn.Linear(16, 32, key=key),
          eqx.nn.Linear(32, 16, key=key),
        )

      stack = eqx.filter_vmap(make)(jax.random.split(KEY, LAYERS))
      built, x = equinox(stack, call=one_after_the_other), x[0]
      into, out, letters = 's(HO)i', 'sO(hi)', 'sOi'
      names = ('query', 'key', 'value', 'output')
      of, up, down = '0/attention/{}_proj/weight', '0/up/weight', '0/down/weight'
  kernels = {of.format(name): (into, TOKENS) for name in names[:3]}
  kernels |= {of.format(names[3]): (out, TOKENS), up: (letters, TOKENS), down: (letters, TOKENS)}
  return Case(*built, x, kernels, products=LAYERS * 2 * TOKENS**2 * 16)


def one_after_the_other(stack, x):
  """Scans over the layers of an Equinox module."""
  params, static = eqx.partition(stack, eqx.is_array)
  return jax.lax.scan(lambda x, p: (eqx.combine(p, static)(x), None), x, params)[0]


def vmapped(library):
  """Three members side by side, each 8 to 12 and 12 to 4, on the same example."""
  x = jnp.ones((1, 8))
  keys = jax.random.split(KEY, LAYERS)
  match library:
    case 'linen':

      class Member(nn.Module):
        @nn.compact
        def __call__(self, x):
          return nn.Dense(4)(nn.relu(nn.Dense(12)(x)))

      members = nn.vmap(
        Member,
        in_axes=None,
        variable_axes={'params': 0},
        split_rngs={'params': True},
        axis_size=LAYERS,
      )
      built = linen(lambda x: members(name='members')(x), x)
      paths = ('members/Dense_0/kernel', 'members/Dense_1/kernel')
    case 'NNX':

      def make(rngs):
        return nnx.Sequential(nnx.Linear(8, 12, rngs=rngs), nnx.relu, nnx.Linear(12, 4, rngs=rngs))

      members = nnx.vmap(make)(rngs().split(LAYERS))
      apply = nnx.vmap(lambda member, x: member(x), in_axes=(0, None))
      built, paths = of_nnx(members, call=apply), ('0/layers/0/kernel', '0/layers/2/kernel')
    case 'Haiku':
      network = hk.without_apply_rng(
        hk.transform(lambda x: hk.Linear(4)(jax.nn.relu(hk.Linear(12)(x))))
      )
      params = jax.vmap(network.init, (0, None))(keys, x)
      built, paths = (jax.vmap(network.apply, (0, None)), params), ('linear/w', 'linear_1/w')
    case _:
      members = eqx.filter_vmap(lambda key: eqx.nn.MLP(8, 4, 12, 1, key=key))(keys)

      def apply(members, x):
        return eqx.filter_vmap(lambda member, x: member(x), in_axes=(eqx.if_array(0), None))(
          members, x
        )

      built, x = equinox(members, call=apply), x[0]
      paths = ('0/layers/0/weight', '0/layers/1/weight')
  letters = 'sOi' if library == 'Equinox' else 'siO'
  return Case(*built, x, dict.fromkeys(paths, (letters, 1)))


LIBRARIES = ('linen', 'NNX', 'Haiku', 'Equinox')
ROWS: dict[str, Callable[[str], Case | None]] = {
  'Dense': dense,
  'Dense, no bias': bias_free,
  'Conv': convolution,
  'Conv, strided': strided,
  'Conv, grouped': grouped,
  'Conv, depthwise': depthwise,
  'Conv, transposed': transposed,
  'DenseGeneral': dense_general,
  'attention': attention,
  'attention, cross': cross_attention,
  'attention, shared keys': shared_keys,
  'Embed': embedding,
  'norms': norms,
  'LSTM': lstm,
  'scanned stack': scanned,
  'scanned transformer': transformer,
  'vmapped stack': vmapped,
}
