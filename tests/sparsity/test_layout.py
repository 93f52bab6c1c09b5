"""Layouts: roles of axes in words, views as matrices, and inference from names and neighbours."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout


def counted(shape):
  return jnp.arange(float(np.prod(shape))).reshape(shape)


# Words


@pytest.mark.parametrize(
  ('text', 'head', 'shape', 'matrix'),
  [
    ('in out', None, (3, 5), (1, 3, 5)),
    ('out in', None, (5, 3), (1, 3, 5)),
    ('position position in out', None, (2, 2, 3, 5), (1, 2, 2, 3, 5)),
    ('out in position position', None, (5, 3, 2, 2), (1, 2, 2, 3, 5)),
    ('in head out', None, (6, 2, 4), (1, 6, 8)),
    ('head in out', None, (2, 4, 6), (1, 8, 6)),
    ('stack in head out', None, (3, 6, 2, 4), (3, 6, 8)),
    ('in stack out', None, (6, 3, 4), (3, 6, 4)),
    ('(head out) in', 2, (8, 6), (1, 6, 8)),
    ('out (head in)', 2, (6, 8), (1, 8, 6)),
    ('in (3 head out)', 2, (6, 24), (1, 6, 24)),
    ('(head 3 out) in', 2, (24, 6), (1, 6, 24)),
    ('(out head) in', 4, (32, 16), (1, 16, 32)),
    ('(in head) out', 4, (32, 16), (1, 32, 16)),
    ('in head', None, (16, 4), (1, 16, 4)),
    ('out', None, (4,), (1, 4)),
    ('head out', None, (2, 4), (1, 8)),
    ('in in out', None, (2, 3, 4), (1, 6, 4)),
    ('', None, (), (1,)),
  ],
)
def test_every_layer_is_viewed_as_a_matrix_and_restored(text, head, shape, matrix):
  layout, leaf = Layout(text, head), counted(shape)
  assert layout.matrix_shape(shape) == matrix
  assert layout.view(leaf, 'matrix').shape == matrix
  for name in ('matrix', 'stacked'):
    np.testing.assert_array_equal(layout.restore(layout.view(leaf, name), name, shape), leaf)


def test_matrices_agree_with_numpy():
  leaf = counted((5, 3, 2))
  np.testing.assert_array_equal(
    Layout('out in position').view(leaf, 'matrix')[0], np.transpose(np.asarray(leaf), (2, 1, 0))
  )
  stack = counted((6, 3, 4))
  np.testing.assert_array_equal(
    Layout('in stack out').view(stack, 'stacked'), np.moveaxis(np.asarray(stack), 1, 0)
  )


@pytest.mark.parametrize('text', ['in head out', 'head in out'])
def test_a_view_by_heads_has_the_heads_first(text):
  shape = (4, 4, 4)
  leaf = counted(shape)
  axis = text.split().index('head')
  by_head = np.moveaxis(np.asarray(leaf), axis, 0).reshape(1, 4, 16)
  np.testing.assert_array_equal(Layout(text).view(leaf, 'by_head'), by_head)
  np.testing.assert_array_equal(Layout(text).restore(jnp.asarray(by_head), 'by_head', shape), leaf)


def test_fused_heads_are_separated():
  fused = counted((2, 24))  # queries, keys and values of two heads, four features each
  by_head = np.asarray(fused).reshape(2, 3, 2, 4).transpose(2, 0, 1, 3).reshape(2, 24)
  layout = Layout('in (3 head out)', head=2)
  view = layout.view(fused, 'by_head')
  np.testing.assert_array_equal(view[0], by_head)
  np.testing.assert_array_equal(layout.restore(view, 'by_head', (2, 24)), fused)
  leaf = counted((8, 3))
  np.testing.assert_array_equal(
    Layout('(head out) in', head=2).view(leaf, 'by_head')[0], np.asarray(leaf).reshape(2, 12)
  )


@pytest.mark.parametrize(
  ('text', 'head', 'message'),
  [
    ('in uot', None, "'uot' must be one of stack, position, head, in, out"),
    ('in (head out', None, "must be words, as in 'stack in \\(head out\\)'"),
    ('in (head out)', None, 'needs head=, the number of heads'),
    ('in 3', None, "'3' must stand beside a head, in parentheses"),
    ('in (3 out)', 2, 'only a head and one other role can be fused'),
    ('in (0 head out)', 2, "'0' must be one of stack, position, head, in, out"),
    ('in out', 4, 'fuses no heads, and takes no head='),
    ('in (head out)', 0, 'head=0 must be an integer, 1 or more'),
    ('in (head out)', 2.0, 'head=2.0 must be an integer, 1 or more'),
    ('head head in', None, 'must have one head at most'),
    ('(in out)', 2, 'only a head and one other role can be fused'),
  ],
)
def test_invalid_words_are_refused(text, head, message):
  with pytest.raises(ValueError, match=message):
    Layout(text, head)


@pytest.mark.parametrize(
  ('layout', 'message'),
  [
    (Layout('in out'), "layout 'in out' of 'w' has 2 axes and must have 3, like its shape"),
    (Layout('in out (head in)', 5), '5, with head=5, must divide 4, the size of the axis that'),
    (Layout('in out (3 head in)', 2), '6, with head=2, must divide 4'),
  ],
)
def test_a_layout_that_does_not_fit_is_refused_by_name(layout, message):
  with pytest.raises(ValueError, match=message):
    layout.check('w', (2, 3, 4))


# Inference from names and neighbours


def found(params, given=None):
  kernels = list(tree.kernels(params))
  return {path: x.text for path, x in axes.layouts(params, kernels, axes.given(given)).items()}


def test_dense_and_convolutions_of_flax():
  class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
      x = nn.Conv(4, (3,), use_bias=False)(x.reshape(len(x), -1, 2))
      x = nn.Conv(6, (3, 3), use_bias=False)(x[..., None])
      x = nn.ConvTranspose(6, (2, 2))(x)
      return nn.Dense(3)(x.reshape(len(x), -1))

  params = Net().init(jax.random.key(0), jnp.ones((1, 8)))['params']
  assert found(params) == {
    'ConvTranspose_0/kernel': 'position position in out',
    'Conv_0/kernel': 'position in out',
    'Conv_1/kernel': 'position position in out',
    'Dense_0/kernel': 'in out',
  }


ATTENTION = {
  'query': 'in head out',
  'key': 'in head out',
  'value': 'in head out',
  'out': 'head in out',
}


@pytest.mark.parametrize('bias', [True, False])
def test_attention_of_linen_and_nnx(bias):
  x = jnp.ones((1, 5, 16))
  linen = nn.MultiHeadDotProductAttention(num_heads=4, use_bias=bias)
  variables = linen.init(jax.random.key(0), x, x)['params']
  module = nnx.MultiHeadAttention(4, 16, use_bias=bias, decode=False, rngs=nnx.Rngs(0))
  for params in (variables, nnx.state(module, nnx.Param), {'attention': variables}):
    kernels = {path.split('/')[-2]: text for path, text in found(params).items()}
    assert kernels == ATTENTION


@pytest.mark.parametrize('axis', [0, 1])
def test_a_scan_is_recognised_by_the_axis_that_all_its_leaves_share(axis):
  class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
      x = nn.LayerNorm()(x)
      x = nn.MultiHeadDotProductAttention(num_heads=2)(x, x)
      return nn.Dense(8)(nn.relu(nn.Dense(32)(x))), None

  scan = nn.scan(Block, variable_axes={'params': axis}, split_rngs={'params': True}, length=3)
  params = scan().init(jax.random.key(0), jnp.ones((1, 5, 8)), None)['params']
  stack = 'stack in' if axis == 0 else 'in stack'
  kernels = {path.split('/')[-2]: text for path, text in found(params).items()}
  assert kernels['Dense_0'] == kernels['Dense_1'] == f'{stack} out'
  assert kernels['query'] == f'{stack} head out'
  assert kernels['out'] == ('stack head in out' if axis == 0 else 'head stack in out')


def test_equinox_layouts_follow_the_types_of_layers():
  keys = jax.random.split(jax.random.key(0), 6)
  layers = {
    'linear': eqx.nn.Linear(4, 4, key=keys[0]),
    'conv': eqx.nn.Conv2d(3, 3, 3, key=keys[1]),
    'attention': eqx.nn.MultiheadAttention(2, 8, key=keys[2]),
    'embedding': eqx.nn.Embedding(5, 4, key=keys[3]),
    'norm': eqx.nn.LayerNorm((3, 4)),
    'stack': eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 4, key=key))(keys),
  }
  params = eqx.filter(layers, eqx.is_inexact_array)
  assert found(params) == {
    'attention/key_proj/weight': '(head out) in',
    'attention/output_proj/weight': 'out (head in)',
    'attention/query_proj/weight': '(head out) in',
    'attention/value_proj/weight': '(head out) in',
    'conv/weight': 'out in position position',
    'linear/weight': 'out in',
    'stack/weight': 'stack out in',
  }


def test_the_name_of_pytorch_is_ambiguous_without_a_bias():
  weight = jnp.ones((5, 3))
  assert found({'weight': weight, 'bias': jnp.ones(5)}) == {'weight': 'out in'}
  assert found({'weight': weight, 'bias': jnp.ones(3)}) == {'weight': 'in out'}
  with pytest.raises(ValueError, match="could be 'out in' or 'in out': say which, as in layouts="):
    found({'fc': {'weight': weight}})
  assert found({'fc': {'weight': weight}}, {'fc/weight': 'out in'}) == {'fc/weight': 'out in'}


@pytest.mark.parametrize(
  ('path', 'shape', 'bias', 'text'),
  [
    ('conv2_d_transpose/w', (2, 2, 8, 4), None, 'position position out in'),
    ('conv2_d_transpose/w', (2, 2, 4, 4), 4, 'position position out in'),
    ('up/w', (2, 2, 8, 4), 8, 'position position out in'),
    ('up/w', (2, 2, 8, 4), 4, 'position position in out'),
    ('ConvTranspose_0/kernel', (2, 2, 8, 4), 8, 'position position out in'),
    ('ConvTranspose_0/kernel', (2, 2, 8, 4), None, 'position position in out'),
    ('conv1_d_transpose/w', (5, 8, 4), 8, 'position out in'),
    ('mlp/kernel', (8, 4), 8, 'out in'),
    ('mlp/kernel', (8, 4), 4, 'in out'),
    ('linear/w', (8, 4), None, 'in out'),
  ],
)
def test_a_bias_has_the_size_of_the_outputs(path, shape, bias, text):
  """Transposed convolutions of Haiku, and of Flax with `transpose_kernel`, have outputs first."""
  layer, _, name = path.rpartition('/')
  leaves = {name: jnp.ones(shape)} | ({} if bias is None else {'b': jnp.ones(bias)})
  assert found({layer: leaves}) == {path: text}


def test_a_bias_beside_several_kernels_implies_nothing():
  params = {'wx': (4, 6), 'wh': (6, 6), 'b': (6,), 'wo': (6, 3)}
  params = {name: jnp.ones(shape) for name, shape in params.items()}
  assert found(params) == dict.fromkeys(['wh', 'wo', 'wx'], 'in out')


def test_a_square_matrix_has_the_sides_of_others_of_its_name():
  """Such as in layers that compute w @ x + b; a lone matrix without a bias is as in Flax."""
  shapes = {'0': ((8, 4), 8), '1': ((8, 8), 8), '2': ((3, 8), 3)}
  params = {k: {'w': jnp.ones(shape), 'b': jnp.ones(n)} for k, (shape, n) in shapes.items()}
  assert found(params) == {f'{k}/w': 'out in' for k in shapes}
  params['3'] = {'w': jnp.ones((4, 8)), 'b': jnp.ones(8)}
  with pytest.raises(ValueError, match=r"the axes of '1/w'.* could be 'in out' or 'out in': say"):
    found(params)


def test_a_single_matrix_with_a_bias_does_not_decide_for_others_of_its_name():
  """Nor do any for the kernels of Flax, whose inputs are first."""
  told, square, bias_free = {'w': jnp.ones((3, 8)), 'b': jnp.ones(3)}, (8, 8), (8, 4)
  for shape in (square, bias_free):
    with pytest.raises(ValueError, match="could be 'in out' or 'out in': say"):
      found({'told': told, 'other': {'w': jnp.ones(shape)}})
    flax = {'kernel': told['w'], 'bias': told['b']}
    params = {'told': flax, 'again': flax, 'other': {'kernel': jnp.ones(shape)}}
    assert found(params)['other/kernel'] == 'in out'


@pytest.mark.parametrize('outside', [{}, {'final': {'scale': jnp.ones(16)}}])
def test_attention_without_biases_is_not_taken_for_a_stack(outside):
  names = ('query', 'key', 'value')
  attention = {name: {'kernel': jnp.ones((32, 4, 8))} for name in names}
  attention |= {'out': {'kernel': jnp.ones((32, 32))}}
  layouts = found({'attention': attention} | outside)
  assert layouts == {f'attention/{name}/kernel': 'in head out' for name in names} | {
    'attention/out/kernel': 'in out'
  }


@pytest.mark.parametrize('window', [(3, 3, 3), (1, 7), (3, 3)])
def test_convolutions_without_biases_are_not_taken_for_a_stack(window):
  block = {name: {'kernel': jnp.ones((*window, 8, 8))} for name in ('conv1', 'conv2')}
  params = {'block': block, 'norm': {'scale': jnp.ones(8)}}
  assert set(found(params).values()) == {' '.join(['position'] * len(window)) + ' in out'}


def test_a_row_for_each_layer_does_not_rule_out_a_stack():
  blocks = {name: {'kernel': jnp.ones((6, 16, 16))} for name in ('q_proj', 'o_proj')}
  with pytest.raises(ValueError, match=r"could be .*'stack in out'"):
    found({'blocks': blocks | {'alpha': jnp.ones((6, 16))}, 'final': {'scale': jnp.ones(16)}})


def test_a_matrix_in_a_stack_of_vectors_is_ambiguous():
  params = {
    'w': jnp.ones((3, 8)),
    'dense': {'kernel': jnp.ones((3, 8, 4)), 'bias': jnp.ones((3, 4))},
  }
  with pytest.raises(ValueError, match="could be 'stack out' or 'in out': say which"):
    found(params)


def test_an_array_beside_equinox_layers_is_ambiguous():
  params = {'linear': eqx.nn.Linear(6, 4, key=jax.random.key(0)), 'a': jnp.ones((2, 6))}
  with pytest.raises(ValueError, match=r"the axes of 'a'.* could be 'in out' or 'out in': say"):
    found(params)
  assert found(params, {'^a$': 'out in'})['linear/weight'] == 'out in'


@pytest.mark.parametrize('shape', [(6, 16, 16), (6, 3, 16, 16)])
def test_a_norm_outside_a_scan_does_not_decide_for_its_layers(shape):
  names = ('q_proj', 'o_proj') if len(shape) == 3 else ('conv1', 'conv2')
  params = {'blocks': {name: {'kernel': jnp.ones(shape)} for name in names}}
  for outside in ({}, {'final': {'scale': jnp.ones(16)}}):
    with pytest.raises(ValueError, match=r"could be .*'stack .*in out'.*: say which"):
      found(params | outside)
  # An axis that differs in size between them is not a stack.
  params['blocks'] |= {names[0]: {'kernel': jnp.ones((16, 6, 16))}} if len(shape) == 3 else {}
  if len(shape) == 3:
    assert found(params | outside)['blocks/q_proj/kernel'] == 'in head out'


def test_a_lone_head_may_be_given_its_side():
  assert Layout('head:out in out').matrix_shape((3, 4, 2)) == (1, 4, 6)
  assert Layout('head in out').matrix_shape((3, 4, 2)) == (1, 12, 2)
  assert Layout('in head:in out').matrix_shape((3, 4, 2)) == (1, 12, 2)
  for text in ('in (head:out out)', 'in head:up out', 'in:out out'):
    with pytest.raises(ValueError, match=r"^layout '.*': '.*' must be "):
      Layout(text, head=2)


@pytest.mark.parametrize(
  ('layer', 'shape'),
  [
    ('qkv_proj', (16, 3, 4, 4)),
    ('dense', (16, 3, 4, 4)),
    ('linear', (3, 8, 4)),
    ('up_proj', (3, 8, 4)),
  ],
)
def test_a_dense_layer_of_several_axes_without_a_bias_is_ambiguous(layer, shape):
  """It may also be a stack, even beside a norm that is not stacked."""
  params = {'norm': {'scale': jnp.ones(16)}, layer: {'kernel': jnp.ones(shape)}}
  with pytest.raises(ValueError, match=r'could be .* or .*: say which'):
    found(params)


@pytest.mark.parametrize(('layer', 'size'), [('proj', 16), ('input_proj', 3), ('value', 5)])
def test_a_convolution_under_another_name_is_ambiguous(layer, size):
  """Such as the patches of a vision transformer, and convolutions along time."""
  window = (size, size) if layer == 'proj' else (size,)
  params = {layer: {'kernel': jnp.ones((*window, 3, 8)), 'bias': jnp.ones(8)}}
  with pytest.raises(ValueError, match=r"could be 'position.* in out' or"):
    found(params)


@pytest.mark.parametrize(
  'name', ['b1', 'attn_norm', 'norm2', 'cls', 'probe', 'latents', 'wte', 'wpe', 'queries']
)
def test_leaves_that_are_no_kernel_at_any_rank(name):
  params = {name: jnp.ones((6, 8)), 'w1': jnp.ones((8, 4))}
  assert list(tree.kernels(params)) == ['w1']


def test_a_row_is_a_kernel_if_its_name_says_so():
  params = {'start': (1, 1, 8), 'kernel': (1, 1, 8), 'w_out': (1, 1, 8), 'out': (1, 8)}
  params = {name: jnp.ones(shape) for name, shape in params.items()}
  assert list(tree.kernels(params)) == ['kernel', 'out', 'w_out']


def test_a_kernel_that_could_be_a_stack_or_a_convolution_is_ambiguous():
  params = {'mlp': {'wi': jnp.ones((24, 8, 16))}}
  with pytest.raises(ValueError, match=r"the axes of 'mlp/wi', shape \(24, 8, 16\), could be"):
    found(params)
  assert found(params, {'wi': 'stack in out'}) == {'mlp/wi': 'stack in out'}


def test_a_square_stack_is_recognised_by_its_bias():
  params = {'kernel': jnp.ones((3, 8, 8)), 'bias': jnp.ones((3, 8))}
  assert found(params) == {'kernel': 'stack in out'}
  with pytest.raises(ValueError, match='could be'):  # heads of one axis, or eight layers of eight
    found({'kernel': jnp.ones((8, 8, 8)), 'bias': jnp.ones((8, 8))})


@pytest.mark.parametrize(
  ('layer', 'text'),
  [
    ('DenseGeneral_0', 'in in in out'),
    ('linear', 'in in in out'),
    ('proj', 'position position in out'),
    ('block', 'position position in out'),
    ('dense_conv', 'position position in out'),
  ],
)
def test_the_name_of_a_layer_outweighs_the_shape_of_a_window(layer, text):
  params = {layer: {'kernel': jnp.ones((4, 4, 4, 8)), 'bias': jnp.ones(8)}}
  [layout] = axes.layouts(params, [f'{layer}/kernel']).values()
  assert layout.text == text


@pytest.mark.parametrize(
  ('layouts', 'message'),
  [
    ({'(': 'in out'}, r"^layouts='\(' must be a regular expression"),
    (['in out'], r"^layouts=\['in out'\] must be a dict"),
    ('in out', r"^layouts='in out' must be a dict"),
    ({'w': 3}, r"^layouts={'w': 3} must have an expression .* and a Layout or its words"),
    ({3: 'in out'}, r"^layouts={3: 'in out'} must have an expression"),
  ],
)
def test_invalid_layouts_are_refused_in_one_line(layouts, message):
  with pytest.raises(ValueError, match=message) as error:
    axes.given(layouts)
  assert '\n' not in str(error.value)


def test_a_pattern_without_a_match_lists_the_parameters():
  with pytest.raises(ValueError, match="layouts: 'qery' matches no parameter; there are: w"):
    found({'w': jnp.ones((2, 2))}, {'qery': 'in out'})
