"""Dead units: what a network with whole groups of zeros can do without, found in its own graph.

An input that is always zero needs no weights, and a unit that nothing reads need not be computed.
Both are found by running the network itself, once, on numbers that say no more than "something is
here": every kernel and bias is replaced by whether it is zero, so what passes through residual
sums, pooling and reshaping is zero where the network is, whatever the graph. Forwards that tells
which outputs are alive; backwards, the gradient tells which are read.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sparsejax.sparsity.kinds import is_kernel
from sparsejax.sparsity.tree import named_leaves


@jax.custom_vjp
def _presence(x):
  """1 where something is; of a gradient the same, so that neither over- nor underflows."""
  return (x > 0).astype(x.dtype)


def _presence_forward(x):
  return _presence(x), None


def _presence_backward(_, gradient):
  return ((gradient > 0).astype(gradient.dtype),)


_presence.defvjp(_presence_forward, _presence_backward)


def remove_dead(model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, ...]):
  """Returns the variables with every weight at zero that no longer does anything.

  A convolution's output whose kernel and bias are zero is dead, and so are scale and bias of the
  BatchNorm behind it: a unit that was removed leaves no constant. The weights that read a dead
  output go, and with an output that no weight reads its own weights and its bias. What is left
  answers every image as before, but for BatchNorm's constants just named.

  Args:
    model: called `model.apply(variables, images, train=False)`, of positive homogeneous parts
      (ReLU, pooling, sums), so that what is zero stays zero.
    variables: `params` of deterministic layers and, with BatchNorm, `batch_stats`.
    image_shape: (height, width, channels).

  Returns:
    Variables of the same structure.

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
  alive, read = _alive_and_read(model, variables, image_shape)
  named = named_leaves(variables['params'])
  cleaned = {}
  for path, leaf in named.items():
    layer = path.rpartition('/')[0]
    outputs = alive[layer]['out'] & read[layer] if layer in alive else None
    if outputs is None:
      cleaned[path] = leaf
    elif is_kernel(path, leaf):
      keep = alive[layer]['in'][:, None] & outputs[None, :]
      if keep.shape != leaf.shape[-2:]:  # in groups each output reads its own few inputs
        keep = jnp.broadcast_to(outputs, leaf.shape[-2:])
      cleaned[path] = jnp.where(keep.reshape((1,) * (leaf.ndim - 2) + keep.shape), leaf, 0)
    else:
      cleaned[path] = jnp.where(outputs, leaf, 0)
  params = jax.tree.unflatten(jax.tree.structure(variables['params']), list(cleaned.values()))
  return {**variables, 'params': params}


def _alive_and_read(model, variables, image_shape):
  """By layer: which inputs and outputs may be other than zero, and which outputs are read."""
  params = jax.tree.map(lambda p: (p != 0).astype(jnp.float32), variables['params'])
  stats = jax.tree.map(jnp.zeros_like, variables.get('batch_stats', {}))
  image = jnp.ones((1, *image_shape))
  alive: dict[str, dict[str, jax.Array]] = {}

  def note(probes, call, args, kwargs, context):
    module = context.module
    if context.method_name != '__call__' or not module.variables.get('params'):
      return call(*args, **kwargs)
    own = module.variables['params']
    if not any(hasattr(leaf, 'shape') for leaf in own.values()):
      return call(*args, **kwargs)  # made of other layers
    layer = '/'.join(module.path)
    x = args[0]
    inputs = _over_positions(x)
    if isinstance(module, nn.BatchNorm):
      # Where its input is removed, so is the constant that it would make of it.
      has_some = sum(own.values())
      y = _presence(x * has_some.reshape((1,) * (x.ndim - 1) + (-1,)))
    else:
      y = _presence(call(*args, **kwargs))
    if probes is not None:
      y = y + probes[layer].reshape((1,) * (y.ndim - 1) + (-1,))
    alive[layer] = {'in': inputs > 0, 'out': _over_positions(y) > 0}
    return y

  def total(probes):
    with nn.intercept_methods(partial(note, probes)):
      logits = model.apply({'params': params, 'batch_stats': stats}, image, train=False)
    return jnp.sum(logits), alive

  # BatchNorm's own arithmetic never runs; that of the others has only sums of what is not negative.
  _, shapes = jax.eval_shape(total, None)
  probes = {layer: jnp.zeros(found['out'].shape) for layer, found in shapes.items()}
  read, found = jax.grad(total, has_aux=True)(probes)
  return found, {layer: gradient > 0 for layer, gradient in read.items()}


def _over_positions(x: jax.Array) -> jax.Array:
  """The largest over examples and positions, for each channel."""
  return jnp.max(x, tuple(range(x.ndim - 1)))


def architecture(params: Any) -> dict[str, dict[str, int]]:
  """Returns how many inputs and outputs of each layer have a weight that is not zero, by path.

  Example:
    >>> architecture({'fc': {'kernel': jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])}})
    {'fc': {'inputs': 2, 'outputs': 1}}
  """
  found = {}
  for path, leaf in named_leaves(params).items():
    if is_kernel(path, leaf):
      there = jnp.any((leaf != 0).reshape(-1, *leaf.shape[-2:]), 0)
      found[path.rpartition('/')[0]] = {
        'inputs': int(jnp.sum(jnp.any(there, 1))),
        'outputs': int(jnp.sum(jnp.any(there, 0))),
      }
  return found
