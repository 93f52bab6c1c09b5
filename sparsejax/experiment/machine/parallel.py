"""Replicas: the only module that names pmap or a device.

Every device holds the whole state and the whole data set, without a device axis, and every replica
works on its share of each batch. What a step returns must have been joined (averaged) over the
replicas, since pmap returns one replica's result for all; a test compares the shards of all state.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = 'batch'


@dataclasses.dataclass(frozen=True)
class Lowerable:
  """A function that can also be lowered for the same arguments, like a function of `jax.jit`."""

  run: Callable[..., Any]
  lower: Callable[..., Any]

  def __call__(self, *arguments: Any) -> Any:
    return self.run(*arguments)


def device_count() -> int:
  """Returns the number of devices that the run trains on, over all of its processes."""
  return jax.device_count()


def device_kinds() -> list[str]:
  """Returns the kinds of those devices."""
  return [device.device_kind for device in jax.local_devices()]


def most_memory() -> int | None:
  """Returns the most bytes that a device has held at once, or None if no device reports it.

  On CPU the memory belongs to no device; there the operating system knows.
  """
  found = [device.memory_stats() or {} for device in jax.local_devices()]
  return max((stats.get('peak_bytes_in_use', 0) for stats in found), default=0) or None


def least_memory() -> int | None:
  """Returns the bytes of the smallest device, or None if no device reports it."""
  found = [(device.memory_stats() or {}).get('bytes_limit') for device in jax.local_devices()]
  return min((size for size in found if size), default=None)


def per_replica_batch_size(batch_size: int, field: str) -> int:
  """Returns the number of examples of a batch that each replica gets.

  Raises:
    ValueError: the devices cannot share the batch equally.
  """
  devices = device_count()
  if batch_size < 1 or batch_size % devices:
    raise ValueError(f'{field}={batch_size} must be a multiple of the number of devices, {devices}')
  return batch_size // devices


def replicate(tree: Any) -> Any:
  """Puts every leaf whole on every device of this process."""
  mesh = Mesh(jax.local_devices(), (AXIS,))
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def join(tree: Any) -> Any:
  """Averages over the replicas; the one collective of a step."""
  return jax.lax.pmean(tree, AXIS)


def total(tree: Any) -> Any:
  """Sums over the replicas."""
  return jax.lax.psum(tree, AXIS)


def batch_indices(start: jax.Array, share: int) -> jax.Array:
  """Returns the positions of this replica's examples in the batch that begins at `start`."""
  return start + jax.lax.axis_index(AXIS) * share + jnp.arange(share)


def fold_in_replica(key: jax.Array) -> jax.Array:
  """Returns this replica's own key, for noise that belongs to no example."""
  return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def map_replicas(function: Callable, *, donate: bool = False) -> Lowerable:
  """Compiles a function of replicated arguments to run on every device, with `AXIS` bound inside.

  Args:
    function: (first, *rest) -> results that are the same on every replica.
    donate: whether `first` may be overwritten by the results.

  Returns:
    The compiled function, which can also be lowered.
  """
  replicas = jnp.arange(jax.local_device_count())  # the indices along the mapped axis
  mapped = _mapped(function, donate_argnums=(1,) if donate else ())

  def call(first, *rest):
    return mapped(replicas, first, rest)

  return Lowerable(call, lambda first, *rest: mapped.lower(replicas, first, rest))


def _mapped(function: Callable, **options: Any) -> jax.stages.Wrapped:
  """The pmap of (replica, first, rest) -> function(first, *rest)."""
  return jax.pmap(
    lambda replica, first, rest: function(first, *rest),
    axis_name=AXIS,
    in_axes=(0, None, None),
    out_axes=None,
    **options,
  )


def replica_cost_analysis(function: Callable, first: Any, *rest: Any) -> dict[str, float]:
  """Returns XLA's cost analysis of one replica's program, before optimisation.

  The CPU's client makes it, because a GPU's client analyses only compiled programs.

  Args:
    function: a function such as `map_replicas` takes.
    first, *rest: its arguments; only their shapes and dtypes count.
  """
  alone = _mapped(function, devices=jax.devices('cpu')[:1])
  shapes = jax.eval_shape(lambda: (jnp.arange(1), first, rest))
  found = alone.lower(*shapes).cost_analysis()
  assert found is not None  # the CPU's client always has one
  return found


def train_calls(step: Callable, *, convolutional: bool) -> Lowerable:
  """Returns run(state, data, order, count), a generator that makes `count` training steps.

  Where a loop on the device is fast, one call makes all steps. XLA's convolutions on CPU are much
  slower in a loop than outside, so there a convolutional model takes one call per step.
  Nothing runs until the generator is iterated, and each call donates the state that it is given.

  Args:
    step: a pure function (state, data, order) -> state.
    convolutional: whether the model contains a convolution.

  Returns:
    A `Lowerable` around a generator function, which yields (state, steps made by this call) after
    each call; its method `lower`, with the same arguments, lowers the program that is called.
  """
  if convolutional and jax.default_backend() == 'cpu':
    one = map_replicas(step, donate=True)

    def run_one_by_one(state, data, order, count):
      for _ in range(count):
        state = one(state, data, order)
        yield jax.block_until_ready(state), 1

    return Lowerable(
      run_one_by_one, lambda state, data, order, count: one.lower(state, data, order)
    )

  def loop(state, data, order, count):
    return jax.lax.fori_loop(0, count, lambda _, s: step(s, data, order), state)

  many = map_replicas(loop, donate=True)

  def run_in_one_call(state, data, order, count):
    yield many(state, data, order, count), count

  return Lowerable(run_in_one_call, many.lower)
