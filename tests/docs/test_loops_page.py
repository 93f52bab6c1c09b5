"""The programs of docs/loops.md run as they stand, one after the other, and do what it says."""

import pathlib
import re

import jax
import numpy as np
import optax
import pytest

import sparsejax

pytestmark = pytest.mark.usefixtures('compiling_is_quick')
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'loops.md'


def sections():
  """{heading: its program}."""
  parts = re.split(r'^## ', PAGE.read_text(), flags=re.MULTILINE)
  programs = {
    part.partition('\n')[0]: re.findall(r'```python\n(.*?)```', part, re.S) for part in parts
  }
  return {heading: '\n'.join(blocks) for heading, blocks in programs.items() if blocks}


def of(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_the_page(tmp_path, monkeypatch):
  monkeypatch.setattr('tempfile.mkdtemp', lambda: tmp_path)
  names = {}
  start, rigl, checkpoints, ensembles, nnx = sections().values()
  exec(start, names)
  exec(rigl, names)
  assert sparsejax.sparsity_report(names['params'])['active_weights'] == (8 * 16 + 16 * 4) // 4
  before = names['params'], names['state']
  kept = of(optax.tree.get(names['state'], 'masks'))
  exec(checkpoints, names)
  again = names['step'](*before, names['x'])
  for one, other in zip(of(again), of((names['params'], names['state'])), strict=True):
    np.testing.assert_array_equal(one, other)
  for mask, unpacked in zip(kept, of(names['masks']), strict=True):
    np.testing.assert_array_equal(mask, unpacked)
  exec(ensembles, names)
  masks = of(optax.tree.get(names['states'], 'masks'))
  assert all((mask[0] != member).any() for mask in masks for member in mask[1:])
  assert all(sum(mask[i].sum() for mask in masks) == 48 for i in range(4))
  exec(nnx, names)
  counted = sparsejax.count_macs(
    lambda params, x: names['nnx'].merge(names['graph'], params, names['rest'], copy=True)(x),
    names['of_nnx'],
    names['x'][:1],
  )
  assert (counted['macs'], counted['products']) == (8 * 16 + 16 * 4, 0)
