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
from sparsejax.internal.atomic import replacing
from sparsejax.internal.needs import needed
from sparsejax.shipping.export import batches

PACKAGES = ('jax2onnx', 'onnx', 'onnxruntime')  # of the extra
CLOSE = 1e-4  # of the spread of the answers
OPSET = 21
BATCH = 'batch'  # the name of the axis of unknown size


def onnx(
  path: str | os.PathLike[str], function: Callable[..., Any], params: Any, *examples: Any
) -> None:
  """Writes a function and its parameters as an ONNX model, for batches of any size.

  The inputs are named input_0, input_1 and so on, the outputs output_0 and so on, in the order of
  `jax.tree.leaves`. Images stay (batch, height, width, channels).

  The file is read back by onnxruntime, and its answers to two batches are compared within 1e-4 of
  their spread, before it replaces an older one.

  Args:
    path: the file to write.
    function: takes (params, *examples), in its mode of evaluation.
    params: a pytree of arrays; they become part of the model.
    examples: the function's other arguments, or their shapes; the first axis of each array is the
      batch.

  Raises:
    ModuleNotFoundError: if jax2onnx, onnx or onnxruntime is not installed.
    ValueError: if jax2onnx cannot convert the function for batches of any size.
    OSError: if the file cannot be written, onnxruntime refuses it, or it answers differently.

  Example:
    >>> onnx('model.onnx', function, params, images)  # doctest: +SKIP
  """
  with needed('onnx'):
    jax2onnx, *_ = (importlib.import_module(name) for name in PACKAGES)
  shapes = batches.shapes_of(examples)
  structure, path = jax.tree.structure(list(examples)), pathlib.Path(path)

  def answers(*leaves):
    return jax.tree.leaves(function(params, *jax.tree.unflatten(structure, leaves)))

  with choice.plain(), _quietly():
    data = _converted(jax2onnx.to_onnx, answers, shapes)
    with replacing(path) as temporary:
      with temporary.open('wb') as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
      read = session(temporary, str(path))
      for size in batches.SIZES:
        inputs = jax.tree.leaves(batches.of_size(examples, size))
        batches.check_alike(str(path), read(*inputs), jax.jit(answers)(*inputs), CLOSE)


def session(path: str | os.PathLike[str], name: str = '') -> Callable[..., list[Any]]:
  """Returns a function of a model's inputs that calls onnxruntime on the CPU.

  Args:
    path: an ONNX model.
    name: its name in the message of a refusal; by default its path.

  Raises:
    ModuleNotFoundError: if onnxruntime is not installed.
    OSError: if onnxruntime refuses the model.
  """
  with needed('onnx'):
    onnxruntime = importlib.import_module('onnxruntime')
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 4  # of 0 to 4; what is an error is raised as well
  try:
    found = onnxruntime.InferenceSession(
      os.fspath(path), options, providers=['CPUExecutionProvider']
    )
  except Exception as error:
    reason = ' '.join(str(error).replace(os.fspath(path), name or os.fspath(path)).split())
    raise OSError(f'onnxruntime refuses {name or path}: {reason}') from error
  names = [one.name for one in found.get_inputs()]
  return lambda *inputs: found.run(None, dict(zip(names, inputs, strict=True)))


def _converted(to_onnx: Any, answers: Callable[..., Any], shapes: Sequence[Any]) -> bytes:
  inputs = [jax.ShapeDtypeStruct((BATCH, *shape[1:]), dtype) for shape, dtype in shapes]
  outputs = len(jax.eval_shape(answers, *(jax.ShapeDtypeStruct(*one) for one in shapes)))
  try:
    model = to_onnx(
      answers,
      inputs,
      opset=OPSET,
      input_names=[f'input_{place}' for place in range(len(inputs))],
      output_names=[f'output_{place}' for place in range(outputs)],
    )
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise ValueError(f'the function must be one that jax2onnx can convert: {reason}') from error
  # The inner shapes that the converter notes are stale where it transposed; runtimes refuse them.
  del model.graph.value_info[:]
  return model.SerializeToString()


@contextlib.contextmanager
def _quietly() -> Generator[None]:
  """Silences the converter's warnings, which are about itself."""
  before = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logging.disable(before)
