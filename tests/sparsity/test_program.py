"""Layouts and counts from traced programs of each library equal those worked out by hand."""

import functools

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import sparsejax
from sparsejax import granularity
from sparsejax.sparsity import program

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

X = jnp.ones((1, 10, 16))  # one example: 10 tokens of 16 features


def read(function, params, *examples):
  """Returns {path: (layout text, number of heads)}."""
  found = program.layouts_of(function, params, *examples)
  return {key.strip('^$').replace('\\', ''): (x.text, x.head) for key, x in found.items()}


# Attention, in each library


def linen_attention():
  module = nn.MultiHeadDotProductAttention(num_heads=4, use_bias=False)
  params = module.init(jax.random.key(0), X, X)['params']
  return lambda p, x: module.apply({'params': p}, x, x), params


def nnx_attention():
  module = nnx.MultiHeadAttention(4, 16, use_bias=False, decode=False, rngs=nnx.Rngs(0))
  static, params = nnx.split(module)
  return lambda p, x: nnx.merge(static, p)(x), params


def haiku_attention():
  def attention(x):
    init = hk.initializers.VarianceScaling()
    return hk.MultiHeadAttention(4, 4, w_init=init, with_bias=False)(x, x, x)

  network = hk.without_apply_rng(hk.transform(attention))
  return network.apply, network.init(jax.random.key(0), X)


def equinox_attention():
  params, static = eqx.partition(
    eqx.nn.MultiheadAttention(4, 16, key=jax.random.key(0)), eqx.is_inexact_array
  )
  return lambda p, x: jax.vmap(lambda y: eqx.combine(p, static)(y, y, y))(x), params


ATTENTIONS = {
  'linen': (linen_attention, ('in head out', None), ('head in out', None)),
  'nnx': (nnx_attention, ('in head out', None), ('head in out', None)),
  'haiku': (haiku_attention, ('in (head out)', 4), ('(head in) out', 4)),
  'equinox': (equinox_attention, ('(head out) in', 4), ('out (head in)', 4)),
}


@pytest.mark.parametrize('library', ATTENTIONS)
def test_attention(library):
  """Four projections cost 4 * 10 * 16 * 16 = 10,240, the two products 2 * 10 * 10 * 16 = 3,200."""
  make, projection, together = ATTENTIONS[library]
  function, params = make()
  found = list(read(function, params, X).values())
  assert sorted(found) == sorted([projection] * 3 + [together])
  counts = sparsejax.count_macs(function, params, X)
  assert counts['macs'] == 10_240 + 3_200
  assert counts['products'] == 3_200


def _attend(q, k, v):
  scores = jax.nn.softmax(jnp.einsum('qhd,khd->hqk', q, k))
  return jnp.einsum('hqk,khd->qhd', scores, v).reshape(10, 16)


def _split(y):
  return [part.reshape(10, 4, 4) for part in jnp.split(y, 3, -1)]


FUSED = {
  'split': (_split, ('in (3 head out)', 4)),
  'slices': (
    lambda y: [y[:, i * 16 : (i + 1) * 16].reshape(10, 4, 4) for i in range(3)],
    ('in (3 head out)', 4),
  ),
  'slices at numbers': (
    lambda y: [jax.lax.dynamic_slice_in_dim(y, i * 16, 16, 1).reshape(10, 4, 4) for i in range(3)],
    ('in (3 head out)', 4),
  ),
  'three first': (
    lambda y: jnp.moveaxis(y.reshape(10, 3, 4, 4), 1, 0),
    ('in (3 head out)', 4),
  ),
  'heads first': (lambda y: jnp.moveaxis(y.reshape(10, 4, 3, 4), 2, 0), ('in (head out)', 4)),
  'within heads': (lambda y: jnp.split(y.reshape(10, 4, 12), 3, -1), ('in (head out)', 4)),
}


@pytest.mark.parametrize('how', FUSED)
def test_heads_of_query_key_and_value_in_one_kernel(how):
  """Pruning removes the two of four heads that NumPy finds weakest, from both kernels."""
  apart, expected = FUSED[how]
  function = lambda p, x: _attend(*apart(x @ p['qkv'])) @ p['out']  # noqa: E731
  rng = np.random.default_rng(0)
  params = {'qkv': rng.normal(size=(16, 48)), 'out': rng.normal(size=(16, 16))}
  params = jax.tree.map(jnp.float32, params)
  assert read(function, params, X[0]) == {'out': ('(head in) out', 4), 'qkv': expected}
  layouts = program.layouts_of(function, params, X[0])
  chain = sparsejax.prune(
    sparsejax.one_shot(0, 0.5), granularity=granularity.heads(), layouts=layouts
  )
  masks = jax.tree.map(np.asarray, chain.update(params, chain.init(params), params)[1].masks)
  numbers = jnp.tile(jnp.arange(48), (10, 1))
  columns = np.stack([np.asarray(part)[0] for part in apart(numbers)])  # part, head, feature
  by_head = [
    [tree['qkv'][:, columns[:, h]].ravel(), tree['out'][4 * h : 4 * h + 4].ravel()]
    for tree in (params, masks)
    for h in range(4)
  ]
  scores = [np.abs(np.concatenate(values)).mean() for values in by_head[:4]]
  for score, mask in zip(scores, by_head[4:], strict=True):
    assert set(np.concatenate(mask).tolist()) == {score >= sorted(scores)[2]}


# Layers


def test_a_scan_of_blocks():
  class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
      y = nn.LayerNorm()(x)
      return x + nn.Dense(16)(nn.gelu(nn.Dense(32)(y))), None

  scan = nn.scan(Block, variable_axes={'params': 1}, split_rngs={'params': True}, length=3)()
  params = scan.init(jax.random.key(0), X, None)['params']
  function = lambda p, x: scan.apply({'params': p}, x, None)[0]  # noqa: E731
  assert read(function, params, X) == {
    'Dense_0/bias': ('out stack', None),
    'Dense_0/kernel': ('in stack out', None),
    'Dense_1/bias': ('out stack', None),
    'Dense_1/kernel': ('in stack out', None),
    'LayerNorm_0/bias': ('out stack', None),
    'LayerNorm_0/scale': ('out stack', None),
  }
  assert sparsejax.count_macs(function, params, X)['macs'] == 3 * 10 * 2 * 16 * 32
  assert program.positions_of(function, params, X)['Dense_0/kernel'] == 10


class Mixed(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    positions = self.param('pos_embedding', nn.initializers.normal(), (12, 16))
    x = nn.Embed(37, 16)(tokens) + positions[None]
    x = nn.Conv(8, (3,), feature_group_count=4)(x)
    x = nn.ConvTranspose(6, (2,), strides=(2,))(x)
    x = nn.RNN(nn.OptimizedLSTMCell(5))(x)
    return nn.DenseGeneral((2, 3), axis=(-2, -1))(x)


def test_embeddings_groups_transposed_convolutions_cells_and_general_layers():
  tokens = jnp.zeros((1, 12), jnp.int32)
  params = Mixed().init(jax.random.key(0), tokens)['params']
  function = lambda p, t: Mixed().apply({'params': p}, t)  # noqa: E731
  found = read(function, params, tokens)
  expected = {
    'Embed_0/embedding': 'in out',
    'pos_embedding': 'position out',
    'Conv_0/kernel': 'position in out',
    'ConvTranspose_0/kernel': 'position in out',
    'OptimizedLSTMCell_0/hf/kernel': 'in out',
    'OptimizedLSTMCell_0/ig/kernel': 'in out',
    'DenseGeneral_0/kernel': 'in in out out',
  }
  assert {path: found[path][0] for path in expected} == expected
  positions = program.positions_of(function, params, tokens)
  assert positions['Embed_0/embedding'] == 0
  assert positions['Conv_0/kernel'] == 12
  assert positions['ConvTranspose_0/kernel'] == 12  # those of the input
  assert positions['OptimizedLSTMCell_0/hf/kernel'] == 24  # steps
  assert positions['DenseGeneral_0/kernel'] == 1


TURNS = {
  'scan': lambda w, x: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0],
  'fori_loop': lambda w, x: jax.lax.fori_loop(0, 5, lambda i, x: x @ w[i], x),
  'take': lambda w, x: jax.lax.fori_loop(0, 5, lambda i, x: x @ jnp.take(w, i, 0), x),
  'numbers': lambda w, x: functools.reduce(lambda x, i: x @ w[i], range(5), x),
  'for': lambda w, x: functools.reduce(jnp.matmul, w, x),
  'unstack': lambda w, x: functools.reduce(jnp.matmul, jnp.unstack(w), x),
  'split': lambda w, x: functools.reduce(lambda x, w: x @ w[0], jnp.split(w, 5), x),
}


@pytest.mark.parametrize('how', TURNS)
def test_a_stack_is_recognised_however_its_layers_are_iterated(how):
  params, x = {'w': jnp.ones((5, 3, 3))}, jnp.ones((1, 3))
  function = lambda p, x: TURNS[how](p['w'], x)  # noqa: E731
  assert read(function, params, x) == {'w': ('stack in out', None)}
  assert program.positions_of(function, params, x) == {'w': 1}


def test_a_while_loop_shows_a_stack_but_not_its_iterations():
  def function(p, x):
    start = 0, x
    return jax.lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] @ p['w'][c[0]]), start)

  params, x = {'w': jnp.ones((5, 3, 3))}, jnp.ones((1, 3))
  assert read(function, params, x) == {'w': ('stack in out', None)}
  with pytest.raises(ValueError, match='the program computes which part of a kernel'):
    sparsejax.count_macs(function, params, x)


@pytest.mark.parametrize('batch', [(), (2,)])
def test_rows_that_an_example_looks_up_are_inputs(batch):
  tokens = jnp.zeros(batch, jnp.int32)
  assert read(lambda p, t: p['e'][t], {'e': jnp.ones((7, 3))}, tokens) == {'e': ('in out', None)}


def test_experts_are_a_stack():
  """Each of three experts gets its own five tokens."""

  def function(p, x):
    hidden = jax.nn.relu(jnp.einsum('etd,edf->etf', x, p['up']))
    return jnp.einsum('etf,efd->etd', hidden, p['down'])

  params, x = {'up': jnp.ones((3, 4, 8)), 'down': jnp.ones((3, 8, 4))}, jnp.ones((3, 5, 4))
  assert read(function, params, x) == {'up': ('stack in out', None), 'down': ('stack in out', None)}
  assert sparsejax.count_macs(function, params, x)['macs'] == 2 * 3 * 5 * 4 * 8


def test_one_input_for_all_experts_makes_a_stack_of_them_too():
  """The next layer batches over the experts' outputs."""

  def function(p, x):
    hidden = jax.nn.relu(jnp.einsum('td,edf->etf', x, p['up']))
    return jnp.einsum('etf,efd->etd', hidden, p['down'])

  params = {'up': jnp.ones((3, 4, 8)), 'down': jnp.ones((3, 8, 4))}
  assert read(function, params, jnp.ones((5, 4)))['up'] == ('stack in out', None)


def test_a_layer_called_twice_counts_twice():
  function = lambda p, x: (x @ p['w']) @ p['w']  # noqa: E731
  params = {'w': jnp.array([[1.0, 0.0], [0.0, 0.0]])}
  counts = sparsejax.count_macs(function, params, jnp.ones((1, 2)))
  assert (counts['macs'], counts['active_macs']) == (8, 2)
  assert read(function, params, jnp.ones((1, 2))) == {'w': ('in out', None)}


def test_a_table_that_is_also_the_last_layer_has_no_single_layout():
  function = lambda p, t: p['table'][t] @ p['table'].T  # noqa: E731
  params = {'table': jnp.ones((7, 4))}
  assert read(function, params, jnp.zeros((1,), jnp.int32)) == {}
  assert program.positions_of(function, params, jnp.zeros((1,), jnp.int32)) == {'table': 1}


ROWS = jnp.ones((7, 4))


def test_a_number_for_each_head_is_an_output():
  """A gate (in, heads) scales the queries of each head, and has no features beside the heads."""

  def gated(p, x):
    q, k = ((x @ p[name]).reshape(7, 2, 3) for name in 'qk')
    return jnp.einsum('qhd,khd->hqk', q * (x @ p['gate'])[:, :, None], k)

  params = {'q': jnp.ones((4, 6)), 'k': jnp.ones((4, 6)), 'gate': jnp.ones((4, 2))}
  assert read(gated, params, ROWS) == {
    'gate': ('in out', None),
    'k': ('in (head out)', 2),
    'q': ('in (head out)', 2),
  }


def test_keys_that_several_queries_share_have_heads():
  def attention(p, x):
    q, k, v = (jnp.einsum('ti,ihd->thd', x, p[name]) for name in 'qkv')
    return _attend_all(q, *(jnp.repeat(part, 2, 1) for part in (k, v))) @ p['o']

  def _attend_all(q, k, v):
    scores = jax.nn.softmax(jnp.einsum('qhd,khd->hqk', q, k))
    return jnp.einsum('hqk,khd->qhd', scores, v).reshape(7, 8)

  params = {'q': (4, 4, 2), 'k': (4, 2, 2), 'v': (4, 2, 2), 'o': (8, 4)}
  params = {name: jnp.ones(shape) for name, shape in params.items()}
  of_heads = ('in head out', None)
  assert read(attention, params, ROWS) == {
    'k': of_heads,
    'o': ('(head in) out', 4),
    'q': of_heads,
    'v': of_heads,
  }


def test_heads_before_the_inputs_are_outputs_if_a_product_makes_them():
  """Kernels of Gemma are (heads, in, out): 'head:out' says that their heads are outputs."""

  def function(p, x):
    q = jnp.einsum('td,ndh->tnh', x, p['q'])
    k, v = jnp.einsum('sd,cndh->csnh', x, p['kv'])
    weights = jax.nn.softmax(jnp.einsum('tnh,snh->nts', q, k))
    return jnp.einsum('tnh,nhd->td', jnp.einsum('nts,snh->tnh', weights, v), p['o'])

  params = {'q': (3, 4, 2), 'kv': (2, 3, 4, 2), 'o': (3, 2, 4)}
  params = {name: jnp.ones(shape) for name, shape in params.items()}
  found = read(function, params, ROWS)
  assert found == {
    'kv': ('out head:out in out', None),
    'o': ('head in out', None),
    'q': ('head:out in out', None),
  }
  layouts = sparsejax.layouts_of(function, params, ROWS)
  assert layouts['^q$'].matrix_shape((3, 4, 2)) == (1, 4, 6)
  assert layouts['^kv$'].matrix_shape((2, 3, 4, 2)) == (1, 4, 12)
  scaled = {
    name: leaf * jnp.arange(1.0, 4).reshape(HEADS_ON[name]) for name, leaf in params.items()
  }
  pruned = sparsejax.prune_to(
    scaled, sparsity=0.6, granularity=sparsejax.granularity.heads(), layouts=layouts
  )
  for name, leaf in pruned.items():
    of_heads = jnp.any(leaf != 0, [i for i, n in enumerate(HEADS_ON[name]) if n == 1])
    assert of_heads.tolist() == [False, False, True]


HEADS_ON = {'q': (3, 1, 1), 'kv': (1, 3, 1, 1), 'o': (3, 1, 1)}


def _gated(p, x):
  """Applies a dense layer to 4 heads of 2 features, and then a separate layer to each head."""
  return jnp.einsum('thi,hio->tho', jnp.einsum('td,dhi->thi', x, p['a']), p['b'])


def _monarch(p, x):
  """Multiplies by two block-diagonal matrices, with a transpose of (block, entry) between."""
  x = jnp.einsum('tki,kio->tko', x.reshape(7, 2, 2), p['a'])
  return jnp.einsum('tok,oki->toi', x.swapaxes(1, 2), p['b'])


@pytest.mark.parametrize(
  ('function', 'shapes', 'text'),
  [
    (_gated, {'a': (4, 4, 2), 'b': (4, 2, 2)}, None),  # its axis 1 may be a stack as well
    (_monarch, {'a': (2, 2, 3), 'b': (3, 2, 2)}, 'stack in out'),
  ],
)
def test_outputs_that_the_next_layer_reads_in_blocks_are_no_stack(function, shapes, text):
  params = {name: jnp.ones(shape) for name, shape in shapes.items()}
  of_first = {} if text is None else {'a': (text, None)}
  assert read(function, params, ROWS) == of_first | {'b': ('stack in out', None)}


def test_a_program_of_derivatives_shows_axes_too():
  """The last product is dead code where only the gradient is used, but shows its kernel's axes."""
  function = jax.vmap(jax.grad(lambda x, p: (jnp.tanh(x @ p['a']) @ p['c'])[0]), (0, None))
  params = {'a': jnp.ones((4, 3)), 'c': jnp.ones((3, 2))}
  found = read(lambda p, x: function(x, p), params, ROWS)
  assert found.get('c', ('in out', None)) == ('in out', None)


def test_a_matrix_in_an_elementwise_product_has_no_layout():
  found = read(
    lambda p, x: sum(x[i : i + 4] * p['c'][i][None] for i in range(4)), {'c': ROWS[:4]}, ROWS
  )
  assert found == {}


def test_the_outputs_of_branches_share_their_layout():
  """Both branches make queries, whose heads show only in a product after the cond."""

  def function(p, x):
    q = jax.lax.cond(x.sum() > 0, lambda x: x @ p['a'], lambda x: x @ p['b'], x).reshape(7, 4, 2)
    return jnp.einsum('qhd,khd->hqk', q, q)

  found = read(function, {'a': jnp.ones((4, 8)), 'b': jnp.ones((4, 8))}, ROWS)
  assert found == dict.fromkeys('ab', ('in (head out)', 4))


def test_a_grouped_convolution_after_attention_has_no_heads():
  """Each filter of a depthwise convolution reads one channel, so that its kernel has no heads."""

  def function(p, x):
    q = (x @ p['q']).reshape(7, 4, 2)
    seen = jnp.einsum('hqk,khd->qhd', jnp.einsum('qhd,khd->hqk', q, q), q).reshape(1, 7, 8)
    return jax.lax.conv_general_dilated(
      seen, p['c'], (1,), 'SAME', dimension_numbers=('NWC', 'WIO', 'NWC'), feature_group_count=8
    )

  found = read(function, {'q': jnp.ones((4, 8)), 'c': jnp.ones((3, 1, 8))}, ROWS)
  assert found == {'q': ('in (head out)', 4), 'c': ('position in out', None)}


def test_members_with_a_common_input_are_left_to_names():
  members = nn.vmap(
    nn.Dense,
    in_axes=None,
    variable_axes={'params': 0},
    split_rngs={'params': True},
    axis_size=3,
  )(5)
  params = members.init(jax.random.key(0), ROWS)['params']
  function = lambda p, x: members.apply({'params': p}, x)  # noqa: E731
  assert 'kernel' not in read(function, params, ROWS)
  report = sparsejax.sparsity_report(params, layouts=program.layouts_of(function, params, ROWS))
  assert list(report['layers']) == ['kernel[0]', 'kernel[1]', 'kernel[2]']


def test_a_scanned_number_is_a_stack():
  def function(p, x):
    return jax.lax.scan(lambda x, p: (x + p['alpha'] * (x @ p['w']), None), x, p)[0]

  params = {'alpha': jnp.ones(3), 'w': jnp.ones((3, 4, 4))}
  assert read(function, params, ROWS) == {'alpha': ('stack', None), 'w': ('stack in out', None)}


def test_an_unknown_number_of_iterations_is_refused():
  def until(p, x):
    return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ p['w'], x)

  def either(p, x):
    return jax.lax.cond(x.sum() > 0, lambda x: x @ p['w'], lambda x: x, x)

  params = {'w': jnp.ones((2, 2))}
  for function, why in ((until, 'a while loop has products'), (either, 'the branches of a')):
    with pytest.raises(ValueError, match=f"multiply-accumulates can't be counted: {why}"):
      sparsejax.count_macs(function, params, jnp.ones((1, 2)))
    assert read(function, params, jnp.ones((1, 2))) == {'w': ('in out', None)}


def test_a_custom_reduction_shows_no_axes():
  def function(p, x):
    y = jax.lax.reduce(x, np.float32(0), lambda a, b: a + 2 * b, (1,))
    return y @ p['w']

  params = {'w': jnp.ones((3, 2))}
  assert read(function, params, jnp.ones((3, 4))) == {'w': ('in out', None)}


def test_parameters_may_be_shapes():
  params = {'w': jax.ShapeDtypeStruct((3, 2), jnp.float32)}
  x = jax.ShapeDtypeStruct((7, 3), jnp.float32)
  assert program.positions_of(lambda p, x: x @ p['w'], params, x) == {'w': 7}


def test_traced_positions_prune_to_a_share_of_the_macs():
  function, params = linen_attention()
  positions = program.positions_of(function, params, X)
  layouts = program.layouts_of(function, params, X)
  pruned = sparsejax.prune_to(params, macs=0.25, positions=positions, layouts=layouts)
  assert sparsejax.count_macs(function, pruned, X)['active_macs'] == 10_240 // 4 + 3_200


def test_the_report_names_the_layers_of_a_stack():
  params = {'mlp': {'kernel': jnp.stack([jnp.eye(3, 4), jnp.zeros((3, 4))])}}
  report = sparsejax.sparsity_report(params, layouts={'mlp': 'stack in out'})
  assert report['layers'] == {
    'mlp[0]': {'weights': 12, 'active_weights': 3, 'units': 4, 'active_units': 3},
    'mlp[1]': {'weights': 12, 'active_weights': 0, 'units': 4, 'active_units': 0},
  }
