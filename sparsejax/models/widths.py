"""A width for each layer: which a network can have, and the smaller network that zeros allow."""

import functools
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict

from sparsejax.compact import planning
from sparsejax.compact.absorbing import absorb
from sparsejax.compact.planning import Plan
from sparsejax.compact.shrinking import check_answers
from sparsejax.internal.lookup import lookup
from sparsejax.models.network import Network, require
from sparsejax.nn import DETERMINISTIC, Layers, deterministic
from sparsejax.nn.deterministic import NO_WIDTHS
from sparsejax.sparsity.leaves import tree

IMAGES = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)  # which every network takes
EXAMPLES = 2  # images that the smaller network is checked with
ZEROS = nn.initializers.zeros  # faster to trace than random initialisers


class Rules(NamedTuple):
  """The widths that the layers of a network may have.

  Attributes:
    widths: {path of a layer: its width by default}.
    alike: {path of a layer: a number}; layers of the same number must have the same width.
    followers: the grouped convolutions, whose default width is the number of their inputs.
    fixed: the layers that must have their default widths.
  """

  widths: Mapping[str, int]
  alike: Mapping[str, int]
  followers: frozenset[str]
  fixed: frozenset[str]


def checked(model: Network, widths: Mapping[str, int]) -> FrozenDict:
  """Returns the widths as a hashable mapping.

  Raises:
    ValueError: if the network has no such layer, or the layer cannot have this width.
  """
  allowed = 'a mapping from paths of layers to their numbers of features'
  require(isinstance(widths, Mapping), 'widths', widths, allowed)
  allowed = f'None for {type(model).__name__}, which is no Network of this package'
  require(isinstance(model, Network), 'widths', widths, allowed)
  model.check_width()
  plain: Any = model.clone(widths=NO_WIDTHS, layers=_ZEROS)
  rules = rules_of(plain)
  for path, width in widths.items():
    lookup('layer of widths', path, rules.widths)
    is_whole = isinstance(width, int | np.integer) and not isinstance(width, bool)
    _require(is_whole and width >= 1, path, width, 'an integer of at least 1')
    own = rules.widths[path]
    is_free = path not in rules.fixed
    _require(is_free or width == own, path, width, f'{own}, the only width of this layer')
  _check_alike(rules, widths)
  return FrozenDict({path: int(width) for path, width in widths.items()})


def _require(condition: bool, path: str, width: Any, allowed: str) -> None:
  require(condition, f'widths[{path!r}]', width, allowed)


def _check_alike(rules: Rules, widths: Mapping[str, int]) -> None:
  """Raises a ValueError if layers differ that must have the same width."""
  first: dict[int, str] = {}
  for path, name in rules.alike.items():
    if path in rules.followers and path not in widths:
      continue
    one = first.setdefault(name, path)
    has, must = (widths.get(p, rules.widths[p]) for p in (path, one))
    if path not in widths:
      path, one, has, must = one, path, must, has
    why = 'their outputs are combined elementwise, so give both the same width'
    _require(has == must, path, has, f"{must}, the width of '{one}': {why}")


def widths_of(params: Any) -> dict[str, int]:
  """Returns {path of a layer: its width}, from the parameters of a network.

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
  """Returns the widths that the layers of a network may have, read from its program.

  Two layers must have the same width if each feature of one can only be removed with a feature of
  the other, as for layers added to one residual stream. A layer's width is fixed if some of its
  features can never be removed, or only several at a time.
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


# The smaller network


def shrink(
  model: Network, variables: Mapping[str, Any], image_shape: tuple[int, ...]
) -> tuple[Network, dict[str, Any]]:
  """Returns a smaller network with the same outputs, without the units that zeros make useless.

  It is an ordinary network with a width for each layer, which can be trained, saved, measured and
  exported as any other. Units are removed if their outputs are zero or constant, or if no layer
  reads them. Their constants are added to the next bias, or subtracted from the next running mean
  of BatchNorm. A unit with a nonzero constant is kept if neither follows, or if the next
  convolution pads its input, since the constant would differ at the borders.

  Args:
    model: a network of `models.create` with deterministic layers.
    variables: its variables, `params` and, with BatchNorm, `batch_stats`, as arrays.
    image_shape: (height, width, channels).

  Returns:
    The smaller network and its variables. Their outputs are compared with those of `model` for
    random images and differ by at most 1e-5 of their spread. `models.plan` gives the removed units,
    the reasons that keep others, and whether the smaller network can be trained further.

  Raises:
    ValueError: if the model is another network or has variational layers, the variables have no
      values, or the outputs would differ.

  Example:
    >>> from sparsejax import models
    >>> model = models.create('lenet300', width=6)
    >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), train=False)
    >>> kernel = variables['params']['fc1']['kernel']
    >>> variables['params']['fc1']['kernel'] = kernel.at[:, :4].set(0.0)
    >>> small, its_variables = shrink(model, variables, (2, 2, 1))
    >>> dict(small.widths), its_variables['params']['fc2']['kernel'].shape
    ({'fc1': 2}, (2, 2))
  """
  small, fewer, _ = _smaller(model, variables, image_shape)
  whole = partial(_answers, model), variables
  check_answers(whole, (partial(_answers, small), fewer), [_images(image_shape)])
  return small, fewer


def plan(model: Network, variables: Mapping[str, Any], image_shape: tuple[int, ...]) -> Plan:
  """Returns the plan by which `shrink` removes units of a network.

  Args:
    model: as in `shrink`.
    variables: as in `shrink`.
    image_shape: as in `shrink`.

  Returns:
    The plan, whose paths begin with 'params' or 'batch_stats'. `trains_on` is whether training the
    smaller network, with BatchNorm in training mode, is training the whole one with masks;
    `reasons` says why it is not. Networks pruned with `granularity.tied`, or with
    `granularity.filters(bias=True, norms=...)`, leave no constants and can be trained further.

  Raises:
    ValueError: as for `shrink`.
  """
  return _smaller(model, variables, image_shape)[2]


def _smaller(model, variables, image_shape) -> tuple[Network, dict[str, Any], Plan]:
  """Returns the smaller network, its variables and the plan, without comparing outputs."""
  _check_model(model)
  answers, images, given = partial(_answers, model), _images(image_shape), dict(variables)
  fewer, found = absorb(answers, given, images)
  small = _resized(model, given, fewer)
  if not _fits(small, fewer, images):  # units were removed from layers of a fixed width
    plain: Any = model.clone(widths=NO_WIDTHS)
    fixed = {f'params/{layer}/kernel' for layer in rules_of(plain).fixed}
    fewer, found = absorb(answers, given, images, whole=fixed)
    small = _resized(model, given, fewer)
  return small, fewer, found


def _check_model(model: Any) -> None:
  is_own = isinstance(model, Network)
  name = type(model).__name__
  allowed = 'a network of models.create: sparsejax.compact.shrink takes any function'
  require(is_own, 'model', name, allowed)
  allowed = "layers='deterministic', with the parameters that posterior.deploy makes"
  require(model.layers == DETERMINISTIC, 'model.layers', model.layers, allowed)


def _answers(model: Network, variables: Mapping[str, Any], images: jax.Array) -> Any:
  return model.apply(variables, images, train=False)


def _images(image_shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((EXAMPLES, *image_shape), jnp.float32)


def _resized(model: Network, variables: Mapping[str, Any], fewer: Any) -> Network:
  """Returns the network with the widths of its smaller parameters."""
  before = widths_of(variables['params'])
  changed = {p: n for p, n in widths_of(fewer['params']).items() if n != before[p]}
  return model.clone(widths=FrozenDict({**model.widths, **changed}))


def _fits(model: Network, params: Any, images: jax.ShapeDtypeStruct) -> bool:
  """Returns whether the network's variables have these shapes."""
  try:
    like = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
  except (ArithmeticError, TypeError, ValueError):
    return False
  shapes = [[(p, jnp.shape(x)) for p, x in tree.named_leaves(t).items()] for t in (like, params)]
  return shapes[0] == shapes[1]
