"""Dead units: what a network with whole groups of zeros can do without, found in its own graph.

An input that is always zero needs no weights, and a unit that nothing reads need not be computed.
Both are found by running the network itself, once, on numbers that say no more than "something is
here": every kernel and bias is replaced by whether it is zero, so what passes through residual
sums, pooling and reshaping is zero where the network is, whatever the graph. Forwards that tells
which outputs are alive; backwards, the gradient tells which are read.

What subtracts can make zero of two numbers that say "something is here". A layer that does so
(LayerNorm, attention, any that is not known here) counts as one that reads all it is given and
whose every output is alive. For what the network does between its layers there is the check:
answers before and after.
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

from sparsejax.nn import deterministic
from sparsejax.sparsity.leaves import axes, tree
from sparsejax.sparsity.leaves.kinds import is_kernel
from sparsejax.sparsity.leaves.tree import named_leaves

# What makes sums of products, so that what goes in and out of it as 0 and 1 tells where it is zero.
SUMS = (deterministic.Dense, deterministic.Conv, nn.Dense, nn.Conv, nn.ConvTranspose)
# And what does not, although it has no parameters of its own or consists of such layers.
MIXES = (
  nn.LayerNorm,
  nn.GroupNorm,
  nn.InstanceNorm,
  nn.RMSNorm,
  nn.SpectralNorm,
  nn.WeightNorm,
  nn.MultiHeadDotProductAttention,
  nn.RNNCellBase,
)
IMAGES = 8  # of each scale that the answers are compared on
# What is zero of small numbers alone, as relu(x - 20), is seen with large ones. Powers of two, so
# that sums of products are exact at each if they are at 1.
SCALES = (1.0, 16.0, 256.0)


@jax.custom_vjp
def _presence(x, scale):
  """The scale where something is; 1 where a gradient is, so that neither over- nor underflows."""
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
  """Returns the variables with every weight at zero that no longer does anything.

  An output that is zero for every image is dead: the weights that read it go. With an output that
  no weight reads its own weights and its bias go. Only dense layers, convolutions and BatchNorm,
  flax's or the package's own, lose any; other layers keep what they have and count as reading
  everything. A layer that is called several times keeps what any of its calls needs.

  Args:
    model: called `model.apply(variables, images, train=False)`.
    variables: `params` of deterministic layers and, with BatchNorm, `batch_stats`.
    image_shape: (height, width, channels).
    drop_constants: whether the BatchNorm of a dead output loses its scale and bias, so that a unit
      that was removed leaves no constant behind. The answers are then those of the network without
      these constants.
    check: whether to apply the network before and after to a few random images, of the sizes of 1,
      16 and 256. This takes concrete arrays: within `jax.jit` pass False, and check the result
      outside where the model is not one of the package's own.

  Returns:
    Variables of the same structure.

  Raises:
    ValueError: answers that would change, as where the network subtracts one branch from another or
      reads -x beside x; answers that are the same for all images, though no weight at zero makes
      them so; layers inside `nn.scan`, `nn.vmap` or `nn.remat`, which are not seen; a
      check of traced arrays.

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
      'remove_dead compares answers before and after, which traced variables do not have: call it '
      'outside jax.jit, or pass check=False'
    )
  find = jax.jit(partial(_before_and_after, model, image_shape, drop_constants))
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


def _before_and_after(model, image_shape, drop_constants, variables):
  """The parameters whose answers stay, and what stays of them."""
  params = variables['params']
  there = jax.tree.map(lambda p: (p != 0).astype(jnp.float32), params)
  seen, _ = _look(model, image_shape, drop_constants, variables, there)
  before = _map_leaves(seen.without_constant, params) if drop_constants else params
  return before, _map_leaves(seen.clean, params)


def _map_leaves(function, params):
  """The parameters, each made anew from (its path, itself)."""
  changed = [function(path, leaf) for path, leaf in named_leaves(params).items()]
  return jax.tree.unflatten(jax.tree.structure(params), changed)


class _Seen(NamedTuple):
  """What passed through the layers, by path.

  alive: which inputs and outputs may be other than zero, under 'in' and 'out'.
  read: which outputs are read.
  turned: the layers whose kernels have outputs ahead of inputs.
  norms: the layers that are a BatchNorm.
  """

  alive: dict[str, dict[str, jax.Array]]
  read: dict[str, jax.Array]
  turned: set[str]
  norms: set[str]

  def clean(self, path, leaf):
    """The leaf without what is dead or not read."""
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

  def without_constant(self, path, leaf):
    """The leaf, where it is a BatchNorm's without those of dead outputs."""
    layer = tree.module_of(path)
    return jnp.where(self.alive[layer]['out'], leaf, 0) if layer in self.norms else leaf


def _look(model, image_shape, drop_constants, variables, params) -> tuple[_Seen, jax.Array]:
  """Runs the network forwards and backwards on what is there.

  Args:
    model: as of `remove_dead`.
    image_shape: as of `remove_dead`.
    drop_constants: as of `remove_dead`.
    variables: as they are.
    params: 1 for each of them that is there, else 0.

  Returns:
    What passed through the layers, and whether the answers depend on the image.
  """
  stats = jax.tree.map(jnp.zeros_like, variables.get('batch_stats', {}))
  alive: dict[str, dict[str, jax.Array]] = {}
  turned, norms = set(), set()
  is_within = False  # a layer whose parts are not looked at

  def note(probes, scale, call, args, kwargs, context):
    nonlocal is_within
    module = context.module
    own = module.variables.get('params', {})
    is_norm = isinstance(module, nn.BatchNorm) and module.axis == -1
    is_layer = is_norm or type(module) in SUMS
    mixes = isinstance(module, MIXES) or (own and not any(map(_is_of_parts, own.values())))
    if is_within or context.method_name != '__call__' or not (is_layer or mixes):
      return call(*args, **kwargs)
    if not is_layer:
      is_within = True
      y = call(*args, **kwargs)
      is_within = False
      return _mixed(y, (args, kwargs), scale)
    layer = '/'.join(module.path)
    x = next(given for given in (*args, *kwargs.values()) if isinstance(given, jax.Array))
    if is_norm:
      norms.add(layer)
      y = _presence(_normalised(module, own, x, None if drop_constants else variables), scale)
    else:
      y = _presence(call(*args, **kwargs), scale)
      if getattr(module, 'transpose_kernel', False):
        turned.add(layer)
    if probes is not None:
      y = y + probes[layer].reshape((1,) * (y.ndim - 1) + (-1,))
    found = {'in': _over_positions(x) > 0, 'out': _over_positions(y) > 0}
    alive[layer] = jax.tree.map(jnp.logical_or, alive[layer], found) if layer in alive else found
    return y

  def total(probes, size, scale):
    alive.clear()
    image = jnp.full((1, *image_shape), size)
    with nn.intercept_methods(partial(note, probes, scale)):
      answers = model.apply(
        {**variables, 'params': params, 'batch_stats': stats}, image, train=False
      )
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(answers)), alive

  _, shapes = jax.eval_shape(total, None, SCALES[0], SCALES[0])
  probes = {layer: jnp.zeros(found['out'].shape) for layer, found in shapes.items()}

  def at(scale):
    (gradients, of_image), found = jax.grad(total, (0, 1), has_aux=True)(probes, scale, scale)
    return found, jax.tree.map(lambda gradient: gradient > 0, gradients), of_image > 0

  of_scales = jax.lax.map(at, jnp.array(SCALES))
  found, read, is_seen = jax.tree.map(lambda there: jnp.any(there, 0), of_scales)
  return _Seen(found, read, turned, norms), is_seen


def _is_of_parts(leaf) -> bool:
  """Whether what a module has under a name is a module's again, and no array."""
  return isinstance(leaf, Mapping)


def _mixed(y, given, scale):
  """What has the shapes of y, is there everywhere and reads all that is given."""
  total = jnp.zeros(())
  for leaf in jax.tree.leaves(given):
    if hasattr(leaf, 'dtype') and jnp.issubdtype(leaf.dtype, jnp.floating):
      total = total + jnp.sum(_presence(leaf, scale))
  return jax.tree.map(
    lambda leaf: _presence(jnp.ones_like(leaf) + total.astype(leaf.dtype), scale), y
  )


def _normalised(module, own, x, variables):
  """BatchNorm, whose own arithmetic subtracts: there where x is or, given variables, a constant."""
  features = x.shape[-1:]
  there = own.get('scale', jnp.full(features, float(not module.use_scale)))
  y = x * _by_channel(there + own.get('bias', jnp.zeros(features)), x)
  return y if variables is None else y + _by_channel(_constant(module, variables), x)


def _constant(module, variables):
  """By channel whether BatchNorm makes something of what is zero."""
  leaves, stats = (variables[name] for name in ('params', 'batch_stats'))
  for name in module.path:
    leaves, stats = leaves.get(name, {}), stats[name]
  factor = lax.rsqrt(stats['var'] + module.epsilon) * leaves.get('scale', 1)
  constant = leaves.get('bias', 0) - stats['mean'] * factor
  return (constant > 0 if getattr(module, 'relu', False) else constant != 0).astype(jnp.float32)


def _by_channel(leaf, x):
  return leaf.reshape((1,) * (x.ndim - 1) + (-1,))


def _over_positions(x: jax.Array) -> jax.Array:
  """The largest over examples and positions, for each channel."""
  return jnp.max(x, tuple(range(x.ndim - 1)))


def _check_answers(model, variables, image_shape, before, after):
  """Raises a ValueError, with the layers at fault, where two sets of parameters answer apart."""
  images = jax.random.normal(jax.random.key(0), (IMAGES, *image_shape))
  answer = jax.jit(lambda variables, images: model.apply(variables, images, train=False))

  def answers(params):
    """At each scale the leaves of what the network answers."""
    found = [answer({**variables, 'params': params}, scale * images) for scale in SCALES]
    return [[np.asarray(x, np.float64) for x in jax.tree.leaves(at)] for at in found]

  wanted = answers(before)

  def apart(params):
    """The largest difference and the size of the answers there; None where they agree."""
    found = [_apart(*at) for at in zip(answers(params), wanted, strict=True)]
    return max((pair for pair in found if pair[0] > 1e-5 * pair[1]), default=None)

  changed = named_leaves(after)
  if (differ := apart(after)) is None:
    is_same = all(jnp.array_equal(leaf, changed[p]) for p, leaf in named_leaves(before).items())
    if not is_same and not _vary(wanted) and not _could_vary(model, variables, image_shape):
      raise ValueError(
        'remove_dead can not compare answers that are the same for all images of the sizes '
        f'{", ".join(f"{scale:g}" for scale in SCALES)}, though not by weights at zero: keep the '
        'variables as they are'
      )
    return
  most, largest = differ

  def only(layer):
    return _map_leaves(
      lambda path, leaf: changed[path] if tree.module_of(path) == layer else leaf, before
    )

  layers = [layer for layer in dict.fromkeys(map(tree.module_of, changed)) if apart(only(layer))]
  raise ValueError(
    f'remove_dead would change the answers by up to {most:.3g}, where the largest is '
    f'{largest:.3g}, by what it takes from {", ".join(layers) or "several layers"}: between its '
    'layers the network does what it can not follow, such as relu(-x) or a difference of two '
    'branches; keep the variables as they are'
  )


def _apart(found, wanted):
  """How far the leaves of two answers are apart at most, and the largest finite one wanted."""
  most = largest = 0.0
  for a, b in zip(found, wanted, strict=True):
    with np.errstate(invalid='ignore'):
      difference = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
    most = max(most, np.max(np.where(np.isnan(difference), np.inf, difference), initial=0))
    largest = max(largest, np.max(np.abs(b), initial=0, where=np.isfinite(b)))
  return most, largest


def _vary(answers) -> bool:
  """Whether any answer differs between two images of one scale."""
  leaves = (leaf for at in answers for leaf in at if leaf.ndim)
  return any(not np.array_equal(x, x[:1].repeat(len(x), 0), equal_nan=True) for x in leaves)


def _could_vary(model, variables, image_shape) -> bool:
  """Whether the answers would depend on the image if no weight were zero."""
  ones = jax.tree.map(lambda p: jnp.ones(p.shape), variables['params'])
  look = jax.jit(lambda ones: _look(model, image_shape, False, variables, ones)[1])
  return bool(look(ones))


def architecture(params: Any) -> dict[str, dict[str, int]]:
  """Returns how many inputs and outputs of each layer have a weight that is not zero, by path.

  Example:
    >>> architecture({'fc': {'kernel': jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])}})
    {'fc': {'inputs': 2, 'outputs': 1}}
  """
  kernels = tree.kernels(params)
  found = {}
  for path, layout in axes.layouts(params, list(kernels)).items():
    [there] = layout.view(kernels[path] != 0, 'matrix')
    there = jnp.any(there.reshape(-1, *there.shape[-2:]), 0)
    found[tree.module_of(path)] = {
      'inputs': int(jnp.sum(jnp.any(there, 1))),
      'outputs': int(jnp.sum(jnp.any(there, 0))),
    }
  return found
