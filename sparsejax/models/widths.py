"""Networks with a width for each layer: valid widths, and networks made smaller by their zeros."""

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

CHECKED_IMAGES = 2  # images for which the smaller network's outputs are compared
ZEROS = nn.initializers.zeros  # faster to trace than random initialisers


class Rules(NamedTuple):
  """The widths that the layers of a network may have.

  Attributes:
    default_widths: {path of a layer: its default width}.
    groups: {path of a layer: number of its group}; the layers of a group must have one width.
    grouped_convolutions: the paths of grouped convolutions, whose default width is the number of
      their input channels.
    fixed: the paths of the layers that must have their default widths.
  """

  default_widths: Mapping[str, int]
  groups: Mapping[str, int]
  grouped_convolutions: frozenset[str]
  fixed: frozenset[str]


def check_widths(model: Network, widths: Mapping[str, int]) -> FrozenDict:
  """Returns the widths as a hashable mapping, after checking them.

  Args:
    model: the network, whose own widths are ignored.
    widths: {path of a layer: number of its features}; other layers have their default widths.

  Raises:
    ValueError: the network has no such layer, or the layer cannot have this width.
  """
  expected = 'a mapping from paths of layers to their numbers of features'
  require(isinstance(widths, Mapping), 'widths', widths, expected)
  expected = f'None for {type(model).__name__}, which is not a Network of this package'
  require(isinstance(model, Network), 'widths', widths, expected)
  model.check_width()
  default_model: Any = model.clone(widths=NO_WIDTHS, layers=_ZERO_LAYERS)
  rules = rules_of(default_model)
  for path, width in widths.items():
    lookup('layer of widths', path, rules.default_widths)
    is_integer = isinstance(width, int | np.integer) and not isinstance(width, bool)
    _require_width(is_integer and width >= 1, path, width, 'an integer of at least 1')
    default = rules.default_widths[path]
    is_valid = path not in rules.fixed or width == default
    _require_width(is_valid, path, width, f'{default}, the only width of this layer')
  _check_groups(rules, widths)
  return FrozenDict({path: int(width) for path, width in widths.items()})


def _require_width(condition: bool, path: str, width: Any, expected: str) -> None:
  """Raises a ValueError that names a layer, its width and what it must be, unless valid."""
  require(condition, f'widths[{path!r}]', width, expected)


def _check_groups(rules: Rules, widths: Mapping[str, int]) -> None:
  """Raises a ValueError if layers of one group have different widths.

  A grouped convolution without a width of its own takes the number of its input channels. The
  message names a layer whose width was given.
  """
  first_of_group: dict[int, str] = {}
  for path, group in rules.groups.items():
    if path in rules.grouped_convolutions and path not in widths:
      continue
    first = first_of_group.setdefault(group, path)
    named, other = (path, first) if path in widths else (first, path)
    width, other_width = (widths.get(p, rules.default_widths[p]) for p in (named, other))
    reason = 'their outputs are combined elementwise, so give both the same width'
    expected = f"{other_width}, the width of '{other}': {reason}"
    _require_width(width == other_width, named, width, expected)


def widths_of(params: Any) -> dict[str, int]:
  """Returns {path of a layer: its width}, from the parameters of a network.

  Example:
    >>> widths_of({'fc1': {'kernel': jnp.ones((4, 3)), 'bias': jnp.ones(3)}})
    {'fc1': 3}
  """
  return {tree.module_of(path): leaf.shape[-1] for path, leaf in _kernels(params).items()}


def _kernels(params: Any) -> dict[str, Any]:
  """Returns {path of a kernel: the kernel}."""
  named = tree.named_leaves(params)
  return {path: leaf for path, leaf in named.items() if path.endswith('/kernel')}


@functools.lru_cache(maxsize=32)
def rules_of(model: Network) -> Rules:
  """Returns the widths that the layers of a network may have, read from its program.

  Two layers must have the same width if each feature of one can only be removed with a feature of
  the other, as for layers added to one residual stream. A layer's width is fixed if some of its
  features can never be removed, or only several at a time.
  """
  images = jax.ShapeDtypeStruct((1, *model.traced_shape), jnp.float32)
  grouped_convolutions = set()

  def note_grouped(call, args, kwargs, context):
    if getattr(context.module, 'feature_group_count', 1) > 1:
      grouped_convolutions.add('/'.join(context.module.path))
    return call(*args, **kwargs)

  with nn.intercept_methods(note_grouped):
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
  params = variables['params']

  def logits(params, images):
    stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables.get('batch_stats', {}))
    return model.apply({'params': params, 'batch_stats': stats}, images, train=False)

  units = planning.units_of(logits, params, images)
  groups, fixed, units_with = {}, set(), {}
  for path in _kernels(params):
    layer = tree.module_of(path)
    own = tuple(units[path][-1].tolist())
    groups[layer] = hash(own)
    are_separate = len({*own}) == len(own) and min(own) >= 0
    # Two layers may have all of their units in common, but not only some.
    if not are_separate or any(units_with.setdefault(unit, own) != own for unit in own):
      fixed.add(layer)
  return Rules(
    default_widths=widths_of(params),
    groups={layer: group for layer, group in groups.items() if layer not in fixed},
    grouped_convolutions=frozenset(grouped_convolutions),
    fixed=frozenset(fixed),
  )


_ZERO_LAYERS = Layers(
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
  original = partial(_logits, model), variables
  check_answers(original, (partial(_logits, small), fewer), [_images(image_shape)])
  return small, fewer


def plan(model: Network, variables: Mapping[str, Any], image_shape: tuple[int, ...]) -> Plan:
  """Returns the plan by which `shrink` removes units of a network.

  Args:
    model: as in `shrink`.
    variables: as in `shrink`.
    image_shape: as in `shrink`.

  Returns:
    The plan, whose paths begin with 'params' or 'batch_stats'. `trains_on` is whether training the
    smaller network, with BatchNorm in training mode, equals training the whole one with masks;
    `reasons` says why it does not. Networks pruned with `granularity.tied`, or with
    `granularity.filters(bias=True, norms=...)`, leave no constants and can be trained further.

  Raises:
    ValueError: as for `shrink`.
  """
  return _smaller(model, variables, image_shape)[2]


def _smaller(
  model: Network, variables: Mapping[str, Any], image_shape: tuple[int, ...]
) -> tuple[Network, dict[str, Any], Plan]:
  """Returns the smaller network, its variables and the plan, without comparing outputs."""
  _check_model(model)
  function = partial(_logits, model)
  images = _images(image_shape)
  given = dict(variables)
  fewer, removal_plan = absorb(function, given, images)
  small = _resized(model, given, fewer)
  if not _has_shapes(small, fewer, images):  # units were removed from layers of a fixed width
    default_model: Any = model.clone(widths=NO_WIDTHS)
    fixed = {f'params/{layer}/kernel' for layer in rules_of(default_model).fixed}
    fewer, removal_plan = absorb(function, given, images, unchanged=fixed)
    small = _resized(model, given, fewer)
  return small, fewer, removal_plan


def _check_model(model: Any) -> None:
  """Raises a ValueError unless the model is a deterministic network of this package."""
  is_own = isinstance(model, Network)
  name = type(model).__name__
  expected = 'a network of models.create: sparsejax.compact.shrink takes any function'
  require(is_own, 'model', name, expected)
  expected = "layers='deterministic', with the parameters that posterior.deploy makes"
  require(model.layers == DETERMINISTIC, 'model.layers', model.layers, expected)


def _logits(model: Network, variables: Mapping[str, Any], images: jax.Array) -> Any:
  """Returns the outputs of a network in evaluation mode."""
  return model.apply(variables, images, train=False)


def _images(image_shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
  """Returns the shape of the images for which outputs are compared."""
  return jax.ShapeDtypeStruct((CHECKED_IMAGES, *image_shape), jnp.float32)


def _resized(model: Network, variables: Mapping[str, Any], fewer: Any) -> Network:
  """Returns the network with the widths of its smaller parameters."""
  before, after = widths_of(variables['params']), widths_of(fewer['params'])
  changed = {path: width for path, width in after.items() if width != before[path]}
  return model.clone(widths=FrozenDict({**model.widths, **changed}))


def _has_shapes(model: Network, variables: Any, images: jax.ShapeDtypeStruct) -> bool:
  """Returns whether a network can be built and its variables have the shapes of these."""
  try:
    own = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images)
  except (ArithmeticError, TypeError, ValueError):
    return False
  return _shapes(own) == _shapes(variables)


def _shapes(variables: Any) -> list[tuple[str, tuple[int, ...]]]:
  """Returns the path and shape of each variable, in order."""
  return [(path, jnp.shape(leaf)) for path, leaf in tree.named_leaves(variables).items()]
