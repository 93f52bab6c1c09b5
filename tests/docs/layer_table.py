"""The table of layers against methods, docs/layers.md: each cell is compared with NumPy.

python tests/docs/layer_table.py writes it anew.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import layer_cases
import numpy as np
from layer_cases import LIBRARIES, ROWS, Case

import sparsejax
from sparsejax import allocation, granularity
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.layout import Layout

PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'layers.md'
SHARE = 0.5  # of groups that stay
RIGHT, TOLD, NONE = 'yes', 'told', '-'


# NumPy's own view: layers, each (positions, inputs, outputs)


def matrices(leaf: np.ndarray, letters: str) -> np.ndarray:
  """The layers of a leaf as (layers, *positions, inputs, outputs), by the letters of its axes."""
  shape, flat = [], ''
  for size, (fused, single) in zip(
    leaf.shape, re.findall(r'\((\w\w)\)|(\w)', letters), strict=True
  ):
    shape += [layer_cases.HEADS, size // layer_cases.HEADS] if fused else [size]
    flat += fused or single
  leaf = leaf.reshape(shape)
  groups = [
    [i for i, letter in enumerate(flat) if letter == 's'],
    *([i] for i, letter in enumerate(flat) if letter in 'pq'),
    [i for i, letter in enumerate(flat) if letter in 'hij'],
    [i for i, letter in enumerate(flat) if letter in 'HOP'],
  ]
  sizes = [int(np.prod([shape[i] for i in group])) for group in groups]
  return leaf.transpose([i for group in groups for i in group]).reshape(sizes)


def heads_in(leaf: np.ndarray, letters: str) -> int:
  return layer_cases.HEADS if '(' in letters else leaf.shape[letters.lower().index('h')]


def heads_of(layer: np.ndarray, letters: str, heads: int) -> np.ndarray:
  """A projection's values as (heads, everything else)."""
  side = -2 if 'h' in letters else -1
  return np.moveaxis(layer, side, 0).reshape(heads, -1)


# What stays of one layer, by NumPy


def top(scores: np.ndarray, count: int) -> np.ndarray:
  """Of scores that all differ."""
  return (
    scores > np.sort(scores, axis=None)[::-1][count] if count < scores.size else scores == scores
  )


def half(groups: int) -> int:
  return max(round(SHARE * groups), 1)


def by_weight(layer):
  return top(layer, half(layer.size))


def by_filter(layer):
  scores = layer.mean(tuple(range(layer.ndim - 1)))
  return np.broadcast_to(top(scores, half(scores.size)), layer.shape)


def by_input_channel(layer):
  scores = layer.mean((*range(layer.ndim - 2), layer.ndim - 1))
  return np.broadcast_to(top(scores, half(scores.size))[:, None], layer.shape)


def by_block(layer):
  """Of 2 x 2 at one position; the only row or column of a layer makes blocks of 1."""
  tall, wide = min(2, layer.shape[-2]), min(2, layer.shape[-1])
  *positions, rows, columns = layer.shape
  tiles = layer.reshape(*positions, rows // tall, tall, columns // wide, wide).mean((-3, -1))
  return np.kron(top(tiles, half(tiles.size)), np.ones((tall, wide), bool))


def by_two_of_four(layer):
  """Of each four inputs of an output, in the order (positions, inputs)."""
  columns = layer.reshape(-1, 4, layer.shape[-1])
  return (np.argsort(np.argsort(-columns, 1), 1) < 2).reshape(layer.shape)


LAYERWISE: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray]]] = {
  'weights': (granularity.weight(), by_weight),
  'filters': (granularity.filters(), by_filter),
  'input channels': (granularity.input_channels(), by_input_channel),
  'blocks': (granularity.blocks(2, 2), by_block),
  '2:4': (granularity.n_m(2, 4), by_two_of_four),
}


# The columns: what is done, and what NumPy says comes out of it


@dataclasses.dataclass(frozen=True)
class Problem:
  """A case with its parameters at values that all differ, and how the library is told of axes."""

  case: Case
  params: Any
  layouts: Mapping[str, Layout] | None

  @functools.cached_property
  def named(self) -> dict[str, np.ndarray]:
    return {path: np.asarray(leaf) for path, leaf in tree.named_leaves(self.params).items()}

  @property
  def magnitudes(self) -> dict[str, np.ndarray]:
    """The layers of every kernel that is pruned, by path."""
    return {
      path: matrices(np.abs(self.named[path]), letters)
      for path, (letters, _) in self.case.kernels.items()
    }

  def masks(self, **options) -> dict[str, np.ndarray]:
    """The masks that the transformation makes, by path; what it leaves whole is not in them."""
    chosen = ('kernels', self.case.table) if self.case.table else 'kernels'
    chain = sparsejax.prune(
      sparsejax.one_shot(0, SHARE), layouts=self.layouts, parameters=chosen, **options
    )
    masks = jax.jit(lambda params: chain.update(params, chain.init(params), params)[1].masks)(
      self.params
    )
    found = {p: np.asarray(m) for p, m in tree.named_leaves(masks).items() if np.ndim(m)}
    assert all(mask.shape == self.named[path].shape for path, mask in found.items())
    return {
      path: mask for path, mask in found.items() if not mask.all() or path in self.case.kernels
    }


def equal(problem: Problem, masks: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]):
  """Whether just the expected leaves are pruned, and as expected."""
  assert masks.keys() == expected.keys(), (masks.keys(), expected.keys())
  for path, (letters, _) in problem.case.kernels.items():
    if path in expected:
      np.testing.assert_array_equal(matrices(masks[path], letters), expected[path], path)


def layerwise(name: str, problem: Problem) -> bool:
  """Half the groups of every layer, each layer for itself."""
  of, by_numpy = LAYERWISE[name]
  expected = {
    path: np.stack([by_numpy(layer) for layer in layers])
    for path, layers in problem.magnitudes.items()
  }
  equal(problem, problem.masks(granularity=of, allocation=allocation.uniform()), expected)
  return True


def heads(problem: Problem) -> bool:
  """Half the heads of every layer, of its projections together; what has no heads stays whole.

  Queries that share a key go with it.
  """
  letters = {path: x for path, (x, _) in problem.case.kernels.items() if 'h' in x.lower()}
  if not letters:
    return False
  layers = problem.magnitudes
  fewest = min(heads_in(problem.named[path], letters[path]) for path in letters)
  masks = problem.masks(granularity=granularity.heads(), allocation=allocation.uniform())
  assert letters.keys() <= masks.keys()
  assert all(masks[path].all() for path in masks.keys() - letters)
  for i in range(len(layers[next(iter(letters))])):
    by_head = [heads_of(layers[path][i], letters[path], fewest) for path in letters]
    kept = top(np.concatenate(by_head, 1).mean(1), fewest // 2)
    for path, of in letters.items():
      found = heads_of(matrices(masks[path], of)[i], of, fewest)
      np.testing.assert_array_equal(found, np.broadcast_to(kept[:, None], found.shape), path)
  return True


def global_rank(problem: Problem) -> bool:
  """The half of all weights that is largest."""
  every = np.concatenate([layers.ravel() for layers in problem.magnitudes.values()])
  least = np.sort(every)[::-1][round(SHARE * every.size) - 1]
  expected = {path: layers >= least for path, layers in problem.magnitudes.items()}
  equal(problem, problem.masks(allocation=allocation.global_rank(), floor=0), expected)
  return True


def erk(problem: Problem) -> bool:
  """Densities in proportion to the sum over the product of each layer's shape, at most 1."""
  shapes = [layers.shape[1:] for layers in problem.magnitudes.values() for _ in layers]
  sizes = np.array([np.prod(shape) for shape in shapes])
  raw = np.array([sum(shape) / np.prod(shape) for shape in shapes])
  total, scale = round(SHARE * sizes.sum()), 0.0
  for scale in np.geomspace(1e-2, 1e6, 200_001):
    if np.minimum(scale * raw, 1) @ sizes >= total:
      break
  counts = iter(np.minimum(scale * raw, 1) * sizes)
  masks = problem.masks(allocation=allocation.erk(), floor=0)
  expected, kept = {}, 0
  for path, (letters, _) in problem.case.kernels.items():
    found = matrices(masks[path], letters)
    for mask in found:
      assert abs(mask.sum() - next(counts)) <= 1
      kept += mask.sum()
    layers = problem.magnitudes[path]
    expected[path] = np.stack([top(x, m.sum()) for x, m in zip(layers, found, strict=True)])
  assert kept == total
  equal(problem, masks, expected)
  return True


def thinned(problem: Problem) -> Any:
  """The parameters with every value of at most a half set to zero."""
  return jax.tree.map(lambda p: p * (abs(p) > 0.5).astype(p.dtype), problem.params)


def report(problem: Problem) -> bool:
  """Weights and filters of every layer, those of a stack apart; tables are no layers."""
  expected: dict[str, np.ndarray] = {}
  for path, layers in problem.magnitudes.items():
    if re.search(problem.case.table or '$^', path):
      continue
    for i, layer in enumerate(layers):
      there = layer > 0.5
      name = path.rpartition('/')[0] + (f'[{i}]' if len(layers) > 1 else '')
      units = there.any(tuple(range(there.ndim - 1)))
      counts = np.array([there.size, there.sum(), units.size, units.sum()])
      expected[name] = expected.get(name, 0) + counts
  found = sparsejax.sparsity_report(thinned(problem), layouts=problem.layouts)
  assert {name: list(layer.values()) for name, layer in found['layers'].items()} == {
    name: counts.tolist() for name, counts in expected.items()
  }
  whole, active, *_ = sum(expected.values())
  assert (found['weights'], found['active_weights']) == (whole, active)
  return True


def macs(problem: Problem) -> bool:
  """Each weight as often as it is applied, and what needs no kernel."""
  case = problem.case
  pairs = [(layers, case.kernels[path][1]) for path, layers in problem.magnitudes.items()]
  found = sparsejax.count_macs(case.function, thinned(problem), case.example)
  assert found['products'] == case.products
  assert found['macs'] == sum(layers.size * n for layers, n in pairs) + case.products
  left = sum(int((layers > 0.5).sum()) * n for layers, n in pairs)
  assert found['active_macs'] == left + case.products
  return True


weights = functools.partial(layerwise, 'weights')
COLUMNS: dict[str, Callable[[Problem], bool]] = {
  **{name: functools.partial(layerwise, name) for name in LAYERWISE},
  'weights': weights,
  'heads': heads,
  'global rank': global_rank,
  'uniform': weights,
  'ERK': erk,
  'report': report,
  'MACs': macs,
}


# Cells


@functools.cache
def problems(row: str, library: str) -> tuple[Problem, Problem, Problem] | None:
  """A case without any help, with its layouts given, and with its program read."""
  case = ROWS[row](library)
  if case is None:
    return None
  leaves, structure = jax.tree.flatten(case.params)
  rng = np.random.default_rng(0)
  sizes = np.cumsum([0, *(leaf.size for leaf in leaves)])
  values = (rng.permutation(sizes[-1]) + 1.0) / sizes[-1] * rng.choice([-1, 1], sizes[-1])
  leaves = [
    jax.numpy.asarray(values[a:b].reshape(leaf.shape), leaf.dtype)
    for leaf, a, b in zip(leaves, sizes, sizes[1:], strict=False)
  ]
  params = jax.tree.unflatten(structure, leaves)
  given = {f'^{re.escape(path)}$': words(letters) for path, (letters, _) in case.kernels.items()}
  read = sparsejax.layouts_of(case.function, params, case.example)
  return Problem(case, params, None), Problem(case, params, given), Problem(case, params, read)


WORDS = dict.fromkeys('ij', 'in') | dict.fromkeys('OP', 'out') | dict.fromkeys('pq', 'position')
WORDS |= {'s': 'stack', 'h': 'head', 'H': 'head'}


def words(letters: str) -> Layout:
  """The layout as a user writes it."""
  text = ''.join(f'{WORDS[letter]} ' if letter in WORDS else letter for letter in letters)
  text = text.replace(' )', ') ').strip()
  return Layout(text, layer_cases.HEADS if '(' in text else None)


def cell(row: str, library: str, column: str) -> str:
  """Returns what stands in a cell; an AssertionError where the answer is wrong.

  Once its layouts are given, and once they are read off its program, none is refused.
  """
  if (found := problems(row, library)) is None:
    return NONE
  plain, given, read = found
  check = functools.partial(_checked, COLUMNS[column])
  applies = check(given)
  assert check(read) == applies
  if not applies:
    return NONE
  if column == 'MACs':
    return RIGHT  # always read off the program
  try:
    check(plain)
  except ValueError as error:
    if re.search('say (which|where they are)', str(error)):
      return TOLD
    raise
  return RIGHT


def _checked(check: Callable[[Problem], bool], problem: Problem) -> bool:
  """Checks each kernel's axes as they were found once, however they were found."""
  paths = tuple(problem.case.kernels)
  found = axes.layouts(problem.params, paths, axes.given(problem.layouts))
  key = check, id(problem.case), tuple(found.items())
  if key not in CHECKED:
    CHECKED[key] = check(problem)
  return CHECKED[key]


CHECKED: dict[Any, bool] = {}


# The page


def page() -> str:
  """Returns the page as it must be: its own words, and the tables."""
  parts = [PAGE.read_text().partition('## ')[0]]
  for library in LIBRARIES:
    rows = [['layer', *COLUMNS]]
    rows += [[row, *(cell(row, library, column) for column in COLUMNS)] for row in ROWS]
    lines = [f'| {" | ".join(row)} |' for row in rows]
    lines.insert(1, '|---' * len(rows[0]) + '|')
    parts.append('\n'.join([f'## {library}', '', *lines, '']))
  return '\n'.join(parts)


if __name__ == '__main__':
  jax.config.update('jax_disable_most_optimizations', True)
  PAGE.write_text(page())
