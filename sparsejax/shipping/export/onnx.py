"""A network as ONNX, for runtimes other than JAX."""

import contextlib
import importlib
import logging
import os
import pathlib
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax

from sparsejax.cpu_conv import choice
from sparsejax.internal.atomic import replacing, write_synced
from sparsejax.internal.needs import needed
from sparsejax.shipping.export import batches

PACKAGES = ('jax2onnx', 'onnx', 'onnxruntime')  # in the extra `onnx`
TOLERANCE = 1e-4  # for the outputs, relative to their spread
OPSET = 21
BATCH = 'batch'  # the name of the dynamic axis


def onnx(
  path: str | os.PathLike[str], function: Callable[..., Any], params: Any, *examples: Any
) -> None:
  """Writes a function and its parameters as an ONNX model, for batches of any size.

  The inputs are named input_0, input_1 and so on, the outputs output_0 and so on, in the order of
  `jax.tree.leaves`. Images stay (batch, height, width, channels).

  Before the file replaces an older one, onnxruntime reads it, and its outputs for two batch sizes
  are compared with the function's; they must agree within 1e-4 of their spread.

  Args:
    path: the file to write.
    function: takes (params, *examples), in evaluation mode.
    params: a pytree of arrays; they become part of the model.
    examples: the function's other arguments, or their shapes; the first axis of each array is the
      batch.

  Raises:
    ModuleNotFoundError: jax2onnx, onnx or onnxruntime is not installed.
    ValueError: jax2onnx cannot convert the function for batches of any size.
    OSError: the file cannot be written, onnxruntime rejects it, or its outputs differ.

  Example:
    >>> onnx('model.onnx', function, params, images)  # doctest: +SKIP
  """
  with needed('onnx'):
    jax2onnx, *_ = (importlib.import_module(name) for name in PACKAGES)
  shapes = batches.shapes_of(examples)
  structure = jax.tree.structure(list(examples))
  path = pathlib.Path(path)

  def flat_function(*leaves):
    return jax.tree.leaves(function(params, *jax.tree.unflatten(structure, leaves)))

  with choice.plain(), _converter_warnings_off():
    data = _convert(jax2onnx.to_onnx, flat_function, shapes)
    with replacing(path) as temporary:
      write_synced(temporary, data)
      read = session(temporary, str(path))
      for size in batches.CHECKED_SIZES:
        inputs = jax.tree.leaves(batches.resize(examples, size))
        expected = jax.jit(flat_function)(*inputs)
        batches.check_close(str(path), read(*inputs), expected, TOLERANCE)


def session(path: str | os.PathLike[str], name: str = '') -> Callable[..., list[Any]]:
  """Returns a function from a model's inputs to its outputs, computed by onnxruntime on the CPU.

  Args:
    path: an ONNX model.
    name: its name in error messages; by default its path.

  Raises:
    ModuleNotFoundError: onnxruntime is not installed.
    OSError: onnxruntime rejects the model.
  """
  with needed('onnx'):
    onnxruntime = importlib.import_module('onnxruntime')
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 4  # fatal only: errors are raised anyway
  try:
    model = onnxruntime.InferenceSession(
      os.fspath(path), options, providers=['CPUExecutionProvider']
    )
  except Exception as error:
    reason = ' '.join(str(error).replace(os.fspath(path), name or os.fspath(path)).split())
    raise OSError(f'onnxruntime refuses {name or path}: {reason}') from error
  names = [value.name for value in model.get_inputs()]
  return lambda *inputs: model.run(None, dict(zip(names, inputs, strict=True)))


def _convert(
  to_onnx: Any, flat_function: Callable[..., Any], shapes: Sequence[tuple[tuple[int, ...], Any]]
) -> bytes:
  """Returns a function as a serialized ONNX model with a dynamic batch axis.

  Args:
    to_onnx: the converter of jax2onnx.
    flat_function: takes arrays and returns a list of arrays.
    shapes: the shape and dtype of each of its inputs, the batch first.

  Raises:
    ValueError: jax2onnx cannot convert the function.
  """
  inputs = [jax.ShapeDtypeStruct((BATCH, *shape[1:]), dtype) for shape, dtype in shapes]
  examples = (jax.ShapeDtypeStruct(*shape_and_dtype) for shape_and_dtype in shapes)
  output_count = len(jax.eval_shape(flat_function, *examples))
  try:
    model = to_onnx(
      flat_function,
      inputs,
      opset=OPSET,
      input_names=[f'input_{index}' for index in range(len(inputs))],
      output_names=[f'output_{index}' for index in range(output_count)],
    )
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise ValueError(f'the function must be one that jax2onnx can convert: {reason}') from error
  # jax2onnx records stale shapes of inner values where it transposes, and runtimes reject them.
  del model.graph.value_info[:]
  return model.SerializeToString()


@contextlib.contextmanager
def _converter_warnings_off() -> Generator[None]:
  """Context manager that silences the converter's warnings, which do not concern the model."""
  before = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logging.disable(before)
