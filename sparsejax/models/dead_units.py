"""Dead units: the parts that a network with whole groups of zeros can do without.

An input that is always zero needs no weights, and a unit that nothing reads need not be computed.
Both are found by running the network itself, once, on numbers that only say "something is here":
every entry of a kernel or bias is replaced by whether it is non-zero. What then passes through
residual sums, pooling and reshaping is zero where the network is zero, whatever the graph. The
forward pass shows which outputs are alive; the backward pass shows, by the gradient, which are
read.

A subtraction can turn two numbers that say "something is here" into zero. A layer that subtracts
(LayerNorm, attention, and any layer not known here) therefore counts as reading all its inputs, and
all its outputs count as alive. What the network does between its layers is covered by a check: its
answers are compared before and after.

`sparsejax.compact` cuts out whole units instead, and adds their constants to the next bias. Here
shapes and constants stay, and less than a unit can go, such as the weights with which one branch
reads a channel of a residual stream before another branch fills it. This also runs within
`jax.jit`, where no values are known.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.core import Tracer

from sparsejax.internal.answers import apart
from sparsejax.nn import CausalAttention, deterministic
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.kinds import is_kernel
from sparsejax.sparsity.leaves.tree import named_leaves

# Layers that only sum products: run on 0s and 1s, they show where their real outputs are zero.
SUMS = (deterministic.Dense, deterministic.Conv, nn.Dense, nn.Conv, nn.ConvTranspose)
# Layers that do more, although they have no parameters of their own or consist of such layers.
MIXES = (
  nn.LayerNorm,
  nn.GroupNorm,
  nn.InstanceNorm,
  nn.RMSNorm,
  nn.SpectralNorm,
  nn.WeightNorm,
  nn.MultiHeadDotProductAttention,
  CausalAttention,
  nn.RNNCellBase,
)
IMAGES = 8  # images of each scale on which the answers are compared
# A function that is zero only for small numbers, such as relu(x - 20), needs large ones to be seen.
# The scales are powers of two, so that sums of products are exact at each if they are at 1.
SCALES = (1.0, 16.0, 256.0)
TOLERANCE = 1e-5  # relative to the spread of the answers


@jax.custom_vjp
def _presence(x, scale):
  """The scale where x is positive; its gradient is 1 or 0, and neither overflows nor underflows."""
  return jnp.where(x > 0, jnp.asarray(scale, x.dtype), 0)


def _presence_forward(x, scale):
  return _presence(x, scale), None


def _presence_backward(_, gradient):
  return (gradient > 0).astype(gradient.dtype), None


_presence.defvjp(_presence_forward, _presence_backward)


def remove_dead(
  model: nn.Module,
  variables: Mapping[str, Any],
  image_shape: tuple[int, ...],
  *,
  drop_constants: bool = False,
  check: bool = True,
):
  """Returns the variables with every weight that no longer has any effect set to zero.

  An output that is zero for every image is dead: the weights that read it are removed. If no weight
  reads an output, its own weights and its bias are removed. Only dense layers, convolutions and
  BatchNorm, flax's or this package's, lose weights; other layers keep theirs and count as reading
  everything. A layer that is called several times keeps whatever any of its calls needs.

  Args:
    model: called as `model.apply(variables, images, train=False)`.
    variables: `params` of deterministic layers and, with BatchNorm, `batch_stats`.
    image_shape: (height, width, channels).
    drop_constants: whether the BatchNorm of a dead output loses its scale and bias, so that a
      removed unit leaves no constant behind. The answers are then those of the network without
      these constants.
    check: whether to compare the answers before and after on a few random images, at scales 1, 16
      and 256. The check needs concrete arrays: within `jax.jit` pass False, and check the result
      outside if the model is not one of this package's own.

  Returns:
    Variables of the same structure.

  Raises:
    ValueError: the answers would change, for example because the network subtracts one branch from
      another or reads both x and -x; the answers are the same for all images, though not because
      of zero weights; layers lie inside `nn.scan`, `nn.vmap` or `nn.remat`, where they are not
      seen; or `check` is set and the arrays are traced.

  Example:
    >>> from sparsejax import models
    >>> model = models.create('lenet300', width=3)
    >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), train=False)
    >>> kernel = variables['params']['fc2']['kernel']
    >>> variables['params']['fc2']['kernel'] = kernel.at[1].set(0.0)  # nothing reads unit 1 of fc1
    >>> clean = remove_dead(model, variables, (2, 2, 1))
    >>> bool((clean['params']['fc1']['kernel'][:, 1] == 0).all())
    True
  """
  if check and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(variables)):
    raise ValueError(
      'remove_dead compares answers before and after, but traced variables have no values: call it '
      'outside jax.jit, or pass check=False'
    )
  find = jax.jit(partial(_clean_params, model, image_shape, drop_constants))
  try:
    before, after = find(variables)
  except jax.errors.UnexpectedTracerError:
    raise ValueError(
      'remove_dead does not see layers within nn.scan, nn.vmap, nn.remat or nn.jit: give it a '
      'model of the same parameters without them, or leave the variables as they are'
    ) from None
  if check:
    _check_answers(model, variables, image_shape, before, after)
  return {**variables, 'params': after}


def _clean_params(model, image_shape, drop_constants, variables):
  """Returns the parameters whose answers must be kept, and the same with dead entries at zero."""
  params = variables['params']
  there = jax.tree.map(lambda p: (p != 0).astype(jnp.float32), params)
  seen, _ = _look(model, image_shape, drop_constants, variables, there)
  before = _map_leaves(seen.drop_constant, params) if drop_constants else params
  return before, _map_leaves(seen.clean, params)


def _map_leaves(function, params):
  """The parameters, each replaced by function(its path, its value)."""
  changed = [function(path, leaf) for path, leaf in named_leaves(params).items()]
  return jax.tree.unflatten(jax.tree.structure(params), changed)


class _Seen(NamedTuple):
  """The live and the read channels of each layer, by path.

  Attributes:
    alive: whether each input and output may be non-zero, under 'in' and 'out'.
    read: whether each output is read.
    turned: the layers whose kernels have the outputs' axis before the inputs'.
    norms: the layers that are BatchNorm.
  """

  alive: dict[str, dict[str, jax.Array]]
  read: dict[str, jax.Array]
  turned: set[str]
  norms: set[str]

  def clean(self, path, leaf):
    """The leaf with every entry that is dead or not read set to zero."""
    layer = tree.module_of(path)
    if layer not in self.alive:
      return leaf
    outputs = self.alive[layer]['out'] & self.read[layer]
    if not is_kernel(path, leaf):
      return jnp.where(outputs, leaf, 0)
    keep = self.alive[layer]['in'][:, None] & outputs[None, :]
    if layer in self.turned:
      keep = keep.T
    elif keep.shape != leaf.shape[-2:]:  # in groups each output reads its own few inputs
      keep = jnp.broadcast_to(outputs, leaf.shape[-2:])
    return jnp.where(keep.reshape((1,) * (leaf.ndim - 2) + keep.shape), leaf, 0)

  def drop_constant(self, path, leaf):
    """The leaf; if it belongs to a BatchNorm, its entries for dead outputs are zero."""
    layer = tree.module_of(path)
    return jnp.where(self.alive[layer]['out'], leaf, 0) if layer in self.norms else leaf


def _look(model, image_shape, drop_constants, variables, params) -> tuple[_Seen, jax.Array]:
  """Runs the network forwards and backwards on the presence of its parameters.

  Args:
    model: as in `remove_dead`.
    image_shape: as in `remove_dead`.
    drop_constants: as in `remove_dead`.
    variables: the network's variables, unchanged.
    params: 1 for each parameter that is non-zero, else 0.

  Returns:
    The live and the read channels of each layer, and whether the answers depend on the image.
  """
  watch = _Watch(variables, drop_constants)
  stats = jax.tree.map(jnp.zeros_like, variables.get('batch_stats', {}))

  def total(probes, pixel, scale):
    watch.alive.clear()
    image = jnp.full((1, *image_shape), pixel)
    with nn.intercept_methods(partial(watch.note, probes, scale)):
      answers = model.apply(
        {**variables, 'params': params, 'batch_stats': stats}, image, train=False
      )
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(answers)), watch.alive

  _, shapes = jax.eval_shape(total, None, SCALES[0], SCALES[0])
  probes = {layer: jnp.zeros(found['out'].shape) for layer, found in shapes.items()}

  def look(scale):
    (gradients, image_gradient), found = jax.grad(total, (0, 1), has_aux=True)(probes, scale, scale)
    return found, jax.tree.map(lambda gradient: gradient > 0, gradients), image_gradient > 0

  per_scale = jax.lax.map(look, jnp.array(SCALES))
  found, read, is_seen = jax.tree.map(lambda there: jnp.any(there, 0), per_scale)
  return _Seen(found, read, watch.turned, watch.norms), is_seen


class _Watch:
  """Answers the calls of layers with presences, and notes which of their channels are alive.

  Attributes:
    alive: as in `_Seen`, from the calls since it was last cleared.
    turned: as in `_Seen`.
    norms: as in `_Seen`.
  """

  def __init__(self, variables: Mapping[str, Any], drop_constants: bool):
    self.alive: dict[str, dict[str, jax.Array]] = {}
    self.turned: set[str] = set()
    self.norms: set[str] = set()
    self._constants_of = None if drop_constants else variables
    self._is_within = False  # whether this is inside a layer whose parts are not looked at

  def note(self, probes, scale, call, args, kwargs, context):
    """Intercepts the call of a module's method."""
    module = context.module
    own = module.variables.get('params', {})
    is_norm = isinstance(module, nn.BatchNorm) and module.axis == -1
    is_layer = is_norm or type(module) in SUMS
    mixes = isinstance(module, MIXES) or (own and not any(map(_is_submodule, own.values())))
    if self._is_within or context.method_name != '__call__' or not (is_layer or mixes):
      return call(*args, **kwargs)
    if not is_layer:
      self._is_within = True
      y = call(*args, **kwargs)
      self._is_within = False
      return _mixed(y, (args, kwargs), scale)
    layer = '/'.join(module.path)
    x = next(given for given in (*args, *kwargs.values()) if isinstance(given, jax.Array))
    if is_norm:
      self.norms.add(layer)
      y = _presence(_normalised(module, own, x, self._constants_of), scale)
    else:
      y = _presence(call(*args, **kwargs), scale)
      if getattr(module, 'transpose_kernel', False):
        self.turned.add(layer)
    if probes is not None:
      y = y + probes[layer].reshape((1,) * (y.ndim - 1) + (-1,))
    found = {'in': _channel_max(x) > 0, 'out': _channel_max(y) > 0}
    before = self.alive.get(layer, found)
    self.alive[layer] = jax.tree.map(jnp.logical_or, before, found)
    return y


def _is_submodule(leaf) -> bool:
  """Returns whether an entry of a module's parameters is again a module's, not an array."""
  return isinstance(leaf, Mapping)


def _mixed(y, given, scale):
  """A result shaped like y that is present everywhere and reads everything it was given."""
  total = jnp.zeros(())
  for leaf in jax.tree.leaves(given):
    if hasattr(leaf, 'dtype') and jnp.issubdtype(leaf.dtype, jnp.floating):
      total = total + jnp.sum(_presence(leaf, scale))
  return jax.tree.map(
    lambda leaf: _presence(jnp.ones_like(leaf) + total.astype(leaf.dtype), scale), y
  )


def _normalised(module, own, x, variables):
  """The presence of a BatchNorm's output: where x is present or, given variables, a constant is.

  BatchNorm itself cannot be run on presences, because it subtracts.
  """
  features = x.shape[-1:]
  there = own.get('scale', jnp.full(features, float(not module.use_scale)))
  y = x * _broadcast_channels(there + own.get('bias', jnp.zeros(features)), x)
  return y if variables is None else y + _broadcast_channels(_constant(module, variables), x)


def _constant(module, variables):
  """For each channel, whether BatchNorm turns zero into something else."""
  leaves, stats = (variables[name] for name in ('params', 'batch_stats'))
  for name in module.path:
    leaves, stats = leaves.get(name, {}), stats[name]
  factor = lax.rsqrt(stats['var'] + module.epsilon) * leaves.get('scale', 1)
  constant = leaves.get('bias', 0) - stats['mean'] * factor
  return (constant > 0 if getattr(module, 'relu', False) else constant != 0).astype(jnp.float32)


def _broadcast_channels(leaf, x):
  return leaf.reshape((1,) * (x.ndim - 1) + (-1,))


def _channel_max(x: jax.Array) -> jax.Array:
  """Returns each channel's largest value over examples and positions."""
  return jnp.max(x, tuple(range(x.ndim - 1)))


def _check_answers(
  model: nn.Module,
  variables: Mapping[str, Any],
  image_shape: tuple[int, ...],
  before: Any,
  after: Any,
) -> None:
  """Raises a ValueError that names the layers if two sets of parameters give other answers.

  Args:
    model: the network.
    variables: its variables; their parameters are not used.
    image_shape: (height, width, channels).
    before: the parameters whose answers are expected.
    after: the parameters without what is dead.
  """
  images = jax.random.normal(jax.random.key(0), (IMAGES, *image_shape))
  answer = jax.jit(lambda variables, images: model.apply(variables, images, train=False))

  def answers(params):
    """The leaves of the network's answers, at each scale."""
    found = [answer({**variables, 'params': params}, scale * images) for scale in SCALES]
    return [[np.asarray(x, np.float64) for x in jax.tree.leaves(one)] for one in found]

  expected = answers(before)

  def difference(params):
    """The largest difference and the spread of the answers there, or None if they agree."""
    return apart(answers(params), expected, TOLERANCE)

  changed = named_leaves(after)
  if (differ := difference(after)) is None:
    is_same = all(jnp.array_equal(leaf, changed[p]) for p, leaf in named_leaves(before).items())
    if not is_same and not _vary(expected) and not _could_vary(model, variables, image_shape):
      raise ValueError(
        'remove_dead cannot compare answers that are the same for all images at the scales '
        f'{", ".join(f"{scale:g}" for scale in SCALES)}, though not because of zero weights: keep '
        'the variables as they are'
      )
    return

  changed_layers = dict.fromkeys(map(tree.module_of, changed))
  cleaned = {layer: _of_layer(layer, before, changed) for layer in changed_layers}
  layers = [layer for layer, params in cleaned.items() if difference(params)]
  raise ValueError(
    f'remove_dead would change the answers by up to {differ.difference:.3g}, where their spread is '
    f'{differ.spread:.3g}, by removing weights of {", ".join(layers) or "several layers"}: between '
    'its layers the network does something that remove_dead cannot follow, such as relu(-x) or a '
    'difference of two branches; keep the variables as they are'
  )


def _of_layer(layer: str, params: Any, changed: Mapping[str, jax.Array]) -> Any:
  """Returns the parameters with the changed leaves of one layer."""
  return _map_leaves(lambda p, leaf: changed[p] if tree.module_of(p) == layer else leaf, params)


def _vary(answers) -> bool:
  """Returns whether any answer differs between two images of one scale."""
  leaves = (leaf for one in answers for leaf in one if leaf.ndim)
  return any(not np.array_equal(x, x[:1].repeat(len(x), 0), equal_nan=True) for x in leaves)


def _could_vary(model, variables, image_shape) -> bool:
  """Returns whether the answers would depend on the image if no weight were zero."""
  ones = jax.tree.map(lambda p: jnp.ones(p.shape), variables['params'])
  look = jax.jit(lambda ones: _look(model, image_shape, False, variables, ones)[1])
  return bool(look(ones))


def architecture(params: Any) -> dict[str, dict[str, int]]:
  """Returns the numbers of inputs and outputs of each layer with a non-zero weight, by path.

  Example:
    >>> architecture({'fc': {'kernel': jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])}})
    {'fc': {'inputs': 2, 'outputs': 1}}
  """
  kernels = tree.kernels(params)
  found = {}
  for path, layout in axes.layouts(params, list(kernels)).items():
    # One array in and one out; its last two axes are inputs and outputs, the others positions.
    [is_active] = layout.view(kernels[path] != 0, 'matrix')
    connects = jnp.any(is_active.reshape(-1, *is_active.shape[-2:]), axis=0)
    found[tree.module_of(path)] = {
      'inputs': int(jnp.sum(jnp.any(connects, axis=1))),
      'outputs': int(jnp.sum(jnp.any(connects, axis=0))),
    }
  return found
