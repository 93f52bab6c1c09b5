"""Exports a network with its parameters as a StableHLO program, for any batch size."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from sparsejax.cpu_conv import choice
from sparsejax.internal.atomic import replacing, write_synced
from sparsejax.internal.needs import needed
from sparsejax.shipping.export import batches

TOLERANCE = 1e-5  # for the outputs, relative to their spread
PLATFORMS = ('cpu', 'cuda', 'tpu')
KNOWN_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')


def stablehlo(
  path: str | os.PathLike[str],
  function: Callable[..., Any],
  params: Any,
  *examples: Any,
  platforms: Sequence[str] = PLATFORMS,
) -> None:
  """Writes a function and its parameters as a program that JAX runs without this package.

  Read it with `jax.export.deserialize(bytearray(data)).call(*inputs)`, with batches of any size.
  JAX guarantees to read it for six months. It contains XLA's own convolutions, which are slower on
  CPU than those of `sparsejax.cpu_conv`.

  Before the file replaces an older one it is read back, and its outputs for two batch sizes are
  compared with the function's; they must agree within 1e-5 of their spread.

  Args:
    path: the file to write.
    function: takes (params, *examples), in evaluation mode.
    params: a pytree of arrays; they become part of the program.
    examples: the function's other arguments, or their shapes; the first axis of each array is the
      batch.
    platforms: the platforms that it can run on, from 'cpu', 'cuda', 'rocm' and 'tpu'. That of this
      process must be among them.

  Raises:
    ModuleNotFoundError: the package flatbuffers is not installed.
    ValueError: the function cannot take batches of any size, or a platform is unknown.
    OSError: the file cannot be written, or its outputs differ when it is read back.

  Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'model.stablehlo'
    >>> stablehlo(path, lambda p, x: x @ p, jnp.ones((2, 1)), jnp.zeros((1, 2)))
    >>> network = jax.export.deserialize(bytearray(path.read_bytes()))
    >>> network.in_avals, network.call(jnp.ones((3, 2))).tolist()
    ((ShapedArray(float32[b,2]),), [[2.0], [2.0], [2.0]])
  """
  with needed('export'):
    import flatbuffers  # noqa: F401  (JAX writes and reads the file with it)
  batches.shapes_of(examples)
  _check_platforms(platforms)
  path = pathlib.Path(path)

  def network(*inputs):
    return function(params, *inputs)

  with choice.plain():
    data = _serialize(network, examples, platforms)
    with replacing(path) as temporary:
      write_synced(temporary, data)
      read = jax.export.deserialize(bytearray(temporary.read_bytes()))
      for size in batches.CHECKED_SIZES:
        inputs = batches.resize(examples, size)
        expected = jax.jit(network)(*inputs)
        batches.check_close(str(path), read.call(*inputs), expected, TOLERANCE)


def _serialize(
  network: Callable[..., Any], examples: Sequence[Any], platforms: Sequence[str]
) -> bytearray:
  """Returns a function of (*examples) as a serialized program with a symbolic batch size.

  Raises:
    ValueError: JAX cannot export the function for batches of any size.
  """
  (batch,) = jax.export.symbolic_shape('b')
  inputs = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((batch, *jnp.shape(leaf)[1:]), jnp.result_type(leaf)),
    list(examples),
  )
  try:
    exported = jax.export.export(jax.jit(network), platforms=tuple(platforms))(*inputs)
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise ValueError(f'the function must take batches of any size: {reason}') from error
  return exported.serialize()


def _check_platforms(platforms: Sequence[str]) -> None:
  """Raises a ValueError unless all platforms are known and this process' own is among them."""
  own = jax.export.default_export_platform()
  unknown = [name for name in platforms if name not in KNOWN_PLATFORMS]
  if isinstance(platforms, str) or unknown or own not in platforms:
    raise ValueError(
      f"platforms={platforms!r} must be a list of {', '.join(KNOWN_PLATFORMS)} with '{own}' "
      'among them: the program is tried there'
    )
