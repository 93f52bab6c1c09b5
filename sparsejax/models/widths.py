"""A width for each layer: which layers may have their own, and which must agree with others."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from sparsejax.compact import planning
from sparsejax.internal.lookup import lookup
from sparsejax.models.network import Network, require
from sparsejax.nn import Layers, deterministic
from sparsejax.nn.deterministic import NO_WIDTHS
from sparsejax.sparsity.leaves import tree

IMAGES = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)  # which every network takes
ZEROS = nn.initializers.zeros  # are traced in a fifth of the time of random numbers


class Rules(NamedTuple):
  """Which widths the layers of a network may have.

  Attributes:
    widths: {path of a layer: how many features it has}, where nothing else is said.
    alike: layers whose features only exist together, by one name for all of them.
    followers: grouped convolutions, which have as many features as they are given.
    fixed: layers that have to keep their widths.
  """

  widths: Mapping[str, int]
  alike: Mapping[str, int]
  followers: frozenset[str]
  fixed: frozenset[str]


def checked(model: Network, widths: Mapping[str, int]) -> FrozenDict:
  """Returns the widths of a network's layers.

  Raises:
    ValueError: a layer that the network does not have, or a width that it cannot have.
  """
  allowed = 'a mapping from paths of layers to their numbers of features'
  require(isinstance(widths, Mapping), 'widths', widths, allowed)
  name = type(model).__name__
  require(isinstance(model, Network), 'widths', widths, f'None for {name}, a network of your own')
  model.check_width()
  plain: Any = model.clone(widths=NO_WIDTHS, layers=_ZEROS)
  rules = rules_of(plain)
  for path, width in widths.items():
    lookup('layer of widths', path, rules.widths)
    is_whole = isinstance(width, int | np.integer) and not isinstance(width, bool)
    _require(is_whole and width >= 1, path, width, 'an integer of at least 1')
    own = rules.widths[path]
    is_free = path not in rules.fixed
    _require(is_free or width == own, path, width, f'{own}, which the network fixes')
  _check_alike(rules, widths)
  return FrozenDict({path: int(width) for path, width in widths.items()})


def _require(condition: bool, path: str, width: Any, allowed: str) -> None:
  require(condition, f'widths[{path!r}]', width, allowed)


def _check_alike(rules: Rules, widths: Mapping[str, int]) -> None:
  """Raises a ValueError where layers differ whose features only exist together."""
  first: dict[int, str] = {}
  for path, name in rules.alike.items():
    if path in rules.followers and path not in widths:
      continue
    one = first.setdefault(name, path)
    has, must = (widths.get(p, rules.widths[p]) for p in (path, one))
    if path not in widths:
      path, one, has, must = one, path, must, has
    _require(
      has == must,
      path,
      has,
      f"{must}, the width of '{one}': their features are added or multiplied one by one; give "
      'both the same',
    )


def widths_of(params: Any) -> dict[str, int]:
  """Returns how many features each layer of a network has, from its parameters.

  Example:
    >>> widths_of({'fc1': {'kernel': jnp.ones((4, 3)), 'bias': jnp.ones(3)}})
    {'fc1': 3}
  """
  return {tree.module_of(path): leaf.shape[-1] for path, leaf in _kernels(params).items()}


def _kernels(params: Any) -> dict[str, Any]:
  named = tree.named_leaves(params)
  return {path: leaf for path, leaf in named.items() if path.endswith('/kernel')}


@functools.lru_cache(maxsize=32)
def rules_of(model: Network) -> Rules:
  """Returns which widths the layers of a network without own ones may have: read off its program.

  Two layers are alike if each feature of the one only exists with one of the other, as those that
  are added to one stream; a layer is fixed if nothing can do without some feature of it, or if its
  own features only exist together.
  """
  followers = set()

  def note(call, args, kwargs, context):
    if getattr(context.module, 'feature_group_count', 1) > 1:
      followers.add('/'.join(context.module.path))
    return call(*args, **kwargs)

  with nn.intercept_methods(note):
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), IMAGES)
  params = variables['params']

  def answers(params, images):
    stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables.get('batch_stats', {}))
    return model.apply({'params': params, 'batch_stats': stats}, images, train=False)

  units = planning.units_of(answers, params, IMAGES)
  alike, fixed, owners = {}, set(), {}
  for path in _kernels(params):
    layer, own = tree.module_of(path), tuple(units[path][-1].tolist())
    alike[layer] = hash(own)
    is_apart = len({*own}) == len(own) and min(own) >= 0
    if not is_apart or any(owners.setdefault(unit, own) != own for unit in own):
      fixed.add(layer)
  free = {layer: name for layer, name in alike.items() if layer not in fixed}
  return Rules(widths_of(params), free, frozenset(followers), frozenset(fixed))


_ZEROS = Layers(
  *(
    functools.partial(layer, kernel_init=ZEROS)
    for layer in (deterministic.Dense, deterministic.Conv)
  )
)
