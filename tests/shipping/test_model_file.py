"""Model files: exact to the bit, within the memory bound, measured by part, refused in one line."""

import errno
import io
import json
import os
import re
import tracemalloc
from typing import NamedTuple

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax.shipping import Header, load, save, share, share_weights, sizes
from sparsejax.shipping.file import decode, encode, structure
from sparsejax.shipping.file import format as form

DTYPES = ('float32', 'float16', 'bfloat16', 'float64', 'int32', 'uint8', 'bool')


def bits(leaf):
  leaf = np.asarray(leaf)
  return leaf.dtype, leaf.shape, leaf.tobytes()


def same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  assert [*map(bits, jax.tree.leaves(one))] == [*map(bits, jax.tree.leaves(other))]


def pruned(shape=(30, 20), density=0.3, seed=0, dtype='float32'):
  rng = np.random.default_rng(seed)
  return (rng.normal(size=shape) * (rng.random(shape) < density)).astype(jnp.dtype(dtype))


def network():
  return {
    'params': {
      'conv': {'kernel': pruned((3, 3, 2, 8), 0.4), 'bias': pruned((8,), 1.0)},
      'fc': {'kernel': pruned((72, 10), 0.05, dtype='bfloat16'), 'bias': pruned((10,), 0.5)},
    },
    'batch_stats': {'bn': {'mean': pruned((8,), 1), 'var': np.ones(8, np.float32)}},
  }


@st.composite
def leaves(draw):
  """Draws a leaf of any dtype, shape, density and number of values, with -0.0, inf and NaN."""
  dtype = draw(st.sampled_from(DTYPES))
  shape = draw(st.lists(st.integers(0, 7), max_size=4).map(tuple))
  rng = np.random.default_rng(draw(st.integers(0, 2**32)))
  values = rng.normal(size=draw(st.sampled_from((1, 3, 16, 300)))) * 100
  odd = [np.nan, -0.0, np.inf] if 'float' in dtype and draw(st.booleans()) else []
  leaf = rng.choice([*values, *odd], shape)
  leaf = np.where(rng.random(shape) < draw(st.sampled_from((0, 0.05, 0.5, 1))), leaf, 0)
  with np.errstate(all='ignore'):
    return leaf.astype(jnp.dtype(dtype))


KEYS = st.text(st.characters(exclude_characters='/'), max_size=3)


@hypothesis.given(
  st.recursive(
    leaves() | st.none(),
    lambda below: (
      st.lists(below, max_size=3)
      | st.lists(below, max_size=3).map(tuple)
      | st.dictionaries(KEYS, below, max_size=3)
      | st.dictionaries(st.integers(0, 9), below, max_size=2)
    ),
    max_leaves=5,
  )
)
@hypothesis.settings(deadline=None, max_examples=60)
def test_any_tree_is_restored_to_the_bit(tree):
  data = encode.encode(tree, Header())
  contents, leaves = decode.decode(io.BytesIO(data), 'file', 2**30)
  same(decode.in_tree(contents, leaves), tree)
  assert contents.file_length == len(data)


@pytest.mark.parametrize('dtype', ['float32', 'float16', 'bfloat16'])
@pytest.mark.parametrize('width', range(1, 9))
@pytest.mark.parametrize('density', [0.0, 0.01, 0.3, 1.0])
def test_shared_weights_are_restored_to_the_bit(tmp_path, width, density, dtype):
  params = {'fc': {'kernel': pruned((40, 25), density, dtype=dtype), 'scale': np.float16(2.5)}}
  shared = share(params, width)
  written = save(tmp_path / 'model', params, bits=width)
  same(written, shared.params)
  same(load(tmp_path / 'model').params, shared.params)


def test_a_file_describes_its_network(tmp_path):
  about = {
    'model': 'lenet5',
    'settings': {'width': [6, 16], 'nested': {'a': None}},
    'scaling': {'mean': [0.1307], 'std': [0.3081]},
    'classes': ('zero', 'één'),
    'provenance': {'seed': 3, 'test_accuracy': 0.9921},
  }
  save(tmp_path / 'model', network(), **about)
  assert load(tmp_path / 'model').header == Header(**about)
  save(tmp_path / 'bare', {})
  assert load(tmp_path / 'bare') == ({}, Header())


def test_equal_networks_give_equal_files_and_writing_again_changes_nothing(tmp_path):
  first = save(tmp_path / 'one', network(), bits={'conv': 5, 'fc': 2}, precision='float16')
  save(tmp_path / 'other', network(), bits={'conv': 5, 'fc': 2}, precision='float16')
  assert (tmp_path / 'one').read_bytes() == (tmp_path / 'other').read_bytes()
  save(tmp_path / 'again', load(tmp_path / 'one').params)
  assert (tmp_path / 'one').read_bytes() == (tmp_path / 'again').read_bytes()
  kernel = first['params']['conv']['kernel']
  assert kernel.dtype == np.float32
  np.testing.assert_array_equal(kernel, kernel.astype(np.float16))


def test_trained_centroids_are_stored_once_each(tmp_path):
  params = jax.tree.map(jnp.asarray, share({'kernel': pruned((60, 40), 0.3)}, 3).params)
  tx = share_weights(inner=optax.adam(0.1))
  grad = {'kernel': jnp.asarray(pruned((60, 40), 1.0, seed=1))}
  updates, _ = tx.update(grad, tx.init(params), params)
  trained = optax.apply_updates(params, updates)
  save(tmp_path / 'model', trained)
  same(load(tmp_path / 'model').params, trained)
  found = sizes(tmp_path / 'model')
  assert found['codebooks'] == 8 * 4
  assert not found['rest']


# Sizes


def test_the_parts_sum_to_the_length_of_the_file(tmp_path):
  save(tmp_path / 'model', network(), bits=4)
  found = sizes(tmp_path / 'model')
  assert list(found) == ['header', *form.PARTS, 'checksums']
  assert sum(found.values()) == (tmp_path / 'model').stat().st_size
  assert all(found[part] for part in ('positions', 'ids', 'codebooks', 'biases'))
  save(tmp_path / 'whole', {'fc': {'kernel': pruned(density=1.0)}})
  found = sizes(tmp_path / 'whole')
  assert not any(found[part] for part in ('positions', 'ids', 'codebooks', 'biases'))
  assert found['rest'] > 2000


@pytest.mark.parametrize('density', [0.01, 0.1, 0.5])
def test_positions_and_ids_take_little_more_than_their_entropy(tmp_path, density):
  rng = np.random.default_rng(0)
  kernel = rng.integers(1, 17, (400, 300)) * (rng.random((400, 300)) < density)
  save(tmp_path / 'model', {'kernel': kernel.astype(np.float32)})
  found, kept = sizes(tmp_path / 'model'), np.count_nonzero(kernel)
  p = kept / kernel.size
  entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) * kernel.size / 8
  assert entropy < found['positions'] < 1.06 * entropy + 20
  assert found['ids'] < 1.06 * kept / 2 + 20
  assert found['codebooks'] == 32


def test_dead_units_cost_almost_nothing(tmp_path):
  kernel = pruned((300, 100), 0.1)
  kernel[:, 10:] = 0
  alone = pruned((300, 10), 0.1)
  for name, leaf in (('dead', kernel), ('alone', alone)):
    save(tmp_path / name, {'kernel': leaf}, bits=4)
  assert (tmp_path / 'dead').stat().st_size < (tmp_path / 'alone').stat().st_size + 100


def test_values_are_stored_in_fewer_bits_if_that_loses_nothing(tmp_path):
  values = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
  save(tmp_path / 'wide', {'kernel': values})
  for dtype in ('float16', 'bfloat16'):
    written = save(tmp_path / dtype, {'kernel': values}, precision=dtype)
    assert written['kernel'].dtype == np.float32
    np.testing.assert_array_equal(written['kernel'], values.astype(jnp.dtype(dtype)))
    assert sizes(tmp_path / dtype)['rest'] < 0.6 * sizes(tmp_path / 'wide')['rest']


# Refusals


class Node(NamedTuple):
  kernel: np.ndarray


def test_nodes_of_other_classes_are_restored_into_like(tmp_path):
  path, params = tmp_path / 'model', [Node(pruned()), {'a': pruned((3, 2))}]
  save(path, params)
  with pytest.raises(ValueError, match='were saved in nodes other than dict, list and tuple'):
    load(path)
  same(load(path, like=jax.eval_shape(lambda: params)).params, params)
  same(load(path, like=[{'kernel': params[0].kernel}, params[1]]).params[1], params[1])
  for like, message in (
    ([Node(pruned())], "like= must have a leaf '1/a', as the file has"),
    ([Node(pruned()), {'b': pruned()}], "there is no leaf '1/b': did you mean '1/a'?"),
    (
      [Node(pruned()), {'a': pruned((2, 3))}],
      "the shape of '1/a'=(3, 2) must be (2, 3), as in like",
    ),
  ):
    with pytest.raises(ValueError, match=f'^{re.escape(f"{path}: {message}")}$'):
      load(path, like=like)


@pytest.mark.parametrize(
  ('params', 'arguments', 'message'),
  [
    ({'f': np.sin}, {}, "'f' of type ufunc must be an array of bool, int8, "),
    ({'k': jax.random.key(0)}, {}, "'k' of type key<fry> must be an array of bool, int8, "),
    ({'t': 'text'}, {}, "'t' of type <U4 must be an array of bool, int8, "),
    ({'c': 2j}, {}, "'c' of type complex128 must be an array of bool, int8, "),
    (
      {'a': 1.0},
      {'settings': {'x': {1}}},
      "settings={'x': {1}} must consist of strings, finite",
    ),
    (
      {'a': 1.0},
      {'scaling': {'x': np.nan}},
      "scaling={'x': nan} must consist of strings, finite",
    ),
    ({'a': 1.0}, {'provenance': {'x': [{1: 2}]}}, "provenance={'x': [{1: 2}]} must consist of str"),
    ({'a': 1.0}, {'model': 3}, 'model=3 must be a name'),
    ({'a': 1.0}, {'classes': [1]}, 'classes=[1] must be a list of names'),
    ({'a': 1.0}, {'settings': {'x': 'y' * 2**20}}, 'the header has 10486'),
    ({'a': 1.0}, {'bits': 9}, 'no leaf of a () float32 is a kernel'),
  ],
)
def test_what_cannot_be_written_is_refused_in_one_line(tmp_path, params, arguments, message):
  with pytest.raises(ValueError, match=re.escape(message)) as found:
    save(tmp_path / 'model', params, **arguments)
  assert '\n' not in str(found.value)
  assert not os.listdir(tmp_path)


def test_a_file_that_needs_more_memory_than_the_bound_is_refused(tmp_path):
  path = tmp_path / 'model'
  save(path, {'kernel': np.zeros((2000, 2000), np.float32)})
  assert path.stat().st_size < 300
  with pytest.raises(ValueError, match=r'the memory that it needs=\d+ must be at most max_bytes='):
    load(path, max_bytes=16_000_000)
  assert load(path).params['kernel'].shape == (2000, 2000)
  for bound in (-1, 2.0**30, '1 GB', None):
    with pytest.raises(ValueError, match=r'^max_bytes=.* must be a whole number of bytes, such as'):
      load(path, max_bytes=bound)


@pytest.mark.parametrize(
  'params',
  [
    {'kernel': pruned((400, 300), 0.5)},
    {'kernel': pruned((400, 300), 1.0).astype(np.float16)},
    {'kernel': pruned((400, 300), 0.01).astype(np.float64)},
    {'kernel': share({'kernel': pruned((400, 300), 0.7)}, 3).params['kernel'].T},
    {'kernel': np.ones((400, 300), bool)},
  ],
)
def test_reading_takes_no_more_memory_than_announced(params):
  data = encode.encode(params, Header())
  needed = decode.read_header(io.BytesIO(data), 'file').memory
  tracemalloc.start()
  decode.decode(io.BytesIO(data), 'file', needed)
  taken = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert taken <= needed + 2**18


def test_the_header_is_checked_before_memory_is_allocated():
  """A small file whose header declares huge shapes is refused."""
  data = encode.encode({'kernel': np.zeros((7, 5), np.float32)}, Header())
  for shape in ([2**24, 2**23], [2**47, 0, 2**47]):
    changed = with_header(
      data, lambda fields, shape=shape: fields['leaves'][0].__setitem__(1, shape)
    )
    with pytest.raises(ValueError, match=r'^file: ') as found:
      decode.decode(io.BytesIO(changed), 'file', 2**30)
    assert '\n' not in str(found.value)


def with_header(data, change):
  """Returns a file with a changed header and valid checksums."""
  contents = decode.read_header(io.BytesIO(data), 'file')
  _, _, coder, size, coded = form.PRELUDE.unpack(data[: form.PRELUDE.size])
  text = data[form.PRELUDE.size : form.PRELUDE.size + coded]
  fields = json.loads(decode._decompressed(text, coder, size, 'header', 'file'))
  change(fields)
  at, parts = contents.header_length + form.CHECK.size, []
  for part in contents.parts.values():
    parts.append(data[at : at + part.coded])
    at += part.coded + form.CHECK.size
  return encode.assembled(json.dumps(fields).encode(), parts)


def in_row(leaf, column, value):
  """Returns a change that sets one value in the row of a leaf."""

  def change(fields):
    row = fields['leaves'][leaf]
    row += [0] * (column + 1 - len(row))
    row[column] = value

  return change


FILE = {'fc': {'kernel': share({'kernel': pruned()}, 3).params['kernel'], 'bias': pruned((9,), 1)}}


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda fields: fields.update(more=1), 'the header='),
    (
      lambda fields: fields.update(tree=['x']),
      "a node of tree=['x'] must be a dict, a list, a tuple",
    ),
    (lambda fields: fields.update(tree=1), 'a node of tree=1 must be a dict, a list, a tuple'),
    (
      lambda fields: fields.update(tree={'a': 0}),
      'the number of leaves=2 must be 1, as in the tree',
    ),
    (
      lambda fields: fields.update(tree={'a/b': 0, 'a': {'b': 0}}),
      'must be a tree whose leaves have distinct paths',
    ),
    (lambda fields: fields.update(leaves=7), 'leaves=7 must be a list of rows'),
    (lambda fields: fields.update(classes=[1]), 'classes=[1] must be a list of names'),
    (lambda fields: fields.update(settings=[]), 'settings=[] must be a dict'),
    (
      lambda fields: fields['leaves'].__setitem__(0, [1]),
      "the row of 'fc/bias'=[1] must be a list of 3",
    ),
    (in_row(0, 0, 'object'), "the dtype of 'fc/bias'='object' must"),
    (in_row(0, 0, []), "the dtype of 'fc/bias'=[] must be one of"),
    (in_row(0, 2, 'int8'), "stored of 'fc/bias'='int8' must be "),
    (in_row(0, 1, [-1]), "the shape of 'fc/bias'=[-1] must be"),
    (in_row(0, 1, [1e3]), "the shape of 'fc/bias'=[1000.0] must"),
    (lambda fields: fields['leaves'][0].append(2), "planes of 'fc/bias'=2 must be 0 or 1"),
    (in_row(1, 5, 3), "width of 'fc/kernel'=3 must be one of 0, 1"),
    (in_row(1, 6, 17), "clusters of 'fc/kernel'=17 must be from 1"),
    (in_row(1, 8, 9), "positions of 'fc/kernel'=9 must be from 0"),
    (in_row(1, 9, 601), "kept of 'fc/kernel'=601 must be at most"),
    (in_row(1, 9, 3), 'the length of ids=91 must be 2, as its leav'),
    (in_row(1, 10, 1), "gaps of 'fc/kernel'=1 must be from 0 to 0"),
    (lambda fields: fields['parts'].pop(), 'parts=['),
    (
      lambda fields: fields['parts'].__setitem__(0, 'x'),
      "the row of positions='x' must be a coder and",
    ),
    (
      lambda fields: fields['parts'][0].__setitem__(0, 9),
      'the coder of positions=9 must be at most 2',
    ),
    (lambda fields: fields['parts'][3].__setitem__(1, 1), 'must be '),
  ],
)
def test_an_invalid_header_is_refused_in_one_line(change, message):
  data = with_header(encode.encode(FILE, Header()), change)
  with pytest.raises(ValueError, match=f'^file: .*{re.escape(message)}') as found:
    decode.decode(io.BytesIO(data), 'file', 2**30)
  assert '\n' not in str(found.value)
  assert len(str(found.value)) < 400


def test_depth_is_bounded():
  deep = 0
  for _ in range(200):
    deep = ['l', deep]
  with pytest.raises(ValueError, match=r'^file: the depth of tree=101 must be at most 100$'):
    structure.rebuilt(deep, 'file')
  data = encode.encode(FILE, Header())
  nested = encode.assembled(b'[' * 10**6, [])
  with pytest.raises(
    ValueError, match=r'^file: the header=None must be a JSON object with the keys '
  ):
    decode.decode(io.BytesIO(nested), 'file', 2**30)
  params = 1.0
  for _ in range(200):
    params = [params]
  with pytest.raises(ValueError, match=r'^the tree of parameters must be at most 100 levels deep$'):
    encode.encode(params, Header())
  assert data


def test_other_versions_and_other_files_are_refused(tmp_path):
  path = tmp_path / 'model'
  save(path, FILE)
  data = path.read_bytes()
  for changed, message in (
    (data[:6] + b'\2\0' + data[8:], 'version=2 must be 1, the one that this sparsejax reads'),
    (b'PK\3\4' + data[4:], 'its first bytes='),
    (b'', 'is cut short: 17 more bytes must follow'),
    (data[:-1], f'the length of the file={len(data) - 1} must be {len(data)}, as its header says'),
    (data + b'\0', f'the length of the file={len(data) + 1} must be {len(data)}, as its header'),
    (data[:-1] + bytes([data[-1] ^ 1]), 'must be that of its bytes: the file is damaged'),
    (data[:40] + bytes([data[40] ^ 1]) + data[41:], 'the checksum of its header='),
    (data[:-30] + bytes([data[-30] ^ 1]) + data[-29:], 'the checksum of its biases='),
  ):
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=re.escape(message)) as found:
      load(path)
    assert str(found.value).startswith(str(path))
    assert '\n' not in str(found.value)
  with pytest.raises(FileNotFoundError):
    load(tmp_path / 'none')


def test_a_disk_that_fails_or_lies_leaves_the_old_file_in_place(tmp_path, monkeypatch):
  path = tmp_path / 'model'
  save(path, FILE)
  before = path.read_bytes()

  def fail(*_):
    raise OSError(errno.ENOSPC, 'full')

  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match='full'):
      save(path, network())
  monkeypatch.setattr(encode, 'encode', lambda params, header: before)
  with pytest.raises(OSError, match='was not written: reading it back gave different values'):
    save(path, jax.tree.map(lambda leaf: leaf + 1, FILE))
  assert path.read_bytes() == before
  assert os.listdir(tmp_path) == ['model']
