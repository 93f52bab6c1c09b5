"""A network as StableHLO: one program with its parameters, for any batch and several platforms."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from sparsejax.cpu_conv import choice
from sparsejax.internal.atomic import replacing
from sparsejax.internal.needs import needed
from sparsejax.shipping.export import batches

CLOSE = 1e-5  # of the spread of the answers
PLATFORMS = ('cpu', 'cuda', 'tpu')
KNOWN = ('cpu', 'cuda', 'rocm', 'tpu')


def stablehlo(
  path: str | os.PathLike[str],
  function: Callable[..., Any],
  params: Any,
  *examples: Any,
  platforms: Sequence[str] = PLATFORMS,
) -> None:
  """Writes a function and its parameters as a program that JAX runs without this package.

  Read it with `jax.export.deserialize(bytearray(data)).call(*inputs)`, with batches of any size.
  JAX promises to read it for at least six months. Its convolutions are those for accelerators,
  which are slower on CPU than those of `sparsejax.cpu_conv`.

  The file is read back, and its answers to two batches are compared within 1e-5 of their spread,
  before it replaces an older one.

  Args:
    path: the file to write.
    function: takes (params, *examples), in its mode of evaluation.
    params: a pytree of arrays; they become part of the program.
    examples: the function's other arguments, or their shapes; the first axis of each array is the
      batch.
    platforms: which of 'cpu', 'cuda', 'rocm' and 'tpu' it runs on, this process' own among them.

  Raises:
    ModuleNotFoundError: if the package flatbuffers is not installed.
    ValueError: if the function cannot take batches of any size, or a platform is unknown.
    OSError: if the file cannot be written, or answers differently when read back.

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

  def answers(*inputs):
    return function(params, *inputs)

  with choice.plain():
    data = _exported(answers, examples, platforms)
    with replacing(path) as temporary:
      with temporary.open('wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
      read = jax.export.deserialize(bytearray(temporary.read_bytes()))
      for size in batches.SIZES:
        inputs = batches.of_size(examples, size)
        batches.check_alike(str(path), read.call(*inputs), jax.jit(answers)(*inputs), CLOSE)


def _exported(answers: Callable[..., Any], examples: Sequence[Any], platforms: Sequence[str]):
  (batch,) = jax.export.symbolic_shape('b')
  inputs = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((batch, *jnp.shape(leaf)[1:]), jnp.result_type(leaf)),
    list(examples),
  )
  try:
    exported = jax.export.export(jax.jit(answers), platforms=tuple(platforms))(*inputs)
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise ValueError(f'the function must take batches of any size: {reason}') from error
  return exported.serialize()


def _check_platforms(platforms: Sequence[str]) -> None:
  own = jax.export.default_export_platform()
  unknown = [name for name in platforms if name not in KNOWN]
  if isinstance(platforms, str) or unknown or own not in platforms:
    raise ValueError(
      f"platforms={platforms!r} must be a list of {', '.join(KNOWN)} with '{own}' among them, on "
      'which the program is tried'
    )
