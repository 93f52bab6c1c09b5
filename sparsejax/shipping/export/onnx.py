"""A network as ONNX, for the runtimes that do not know JAX."""

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
  """Writes a function with its parameters as an ONNX model, for batches of any size.

  Its inputs are called input_0, input_1 and so on, its outputs output_0 and so on, in the order of
  `jax.tree.leaves`. Images stay (batch, height, width, channels).

  The file is read back by onnxruntime, and its answers to two batches are compared, within 1e-4 of
  their spread, before it replaces an older one.

  Args:
    path: where the file goes.
    function: takes (params, *examples), and does as in evaluation.
    params: a pytree of arrays; they become part of the model.
    examples: what else the function takes, or its shapes; the first axis of each array is the
      batch.

  Raises:
    ModuleNotFoundError: jax2onnx, onnx or onnxruntime is not installed.
    ValueError: the function cannot compute a batch of any size, or does something that has no
      counterpart in ONNX.
    OSError: the file cannot be written, or reading it back gives other answers.

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
    name: what it is called if it is refused; by default its path.

  Raises:
    ModuleNotFoundError: onnxruntime is not installed.
    OSError: onnxruntime refuses the model.
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
    raise ValueError(f'the function must be one that jax2onnx can write: {reason}') from error
  # The converter's notes of inner shapes are stale where it turned axes, and runtimes refuse them.
  del model.graph.value_info[:]
  return model.SerializeToString()


@contextlib.contextmanager
def _quietly() -> Generator[None]:
  """Keeps what the converter warns of, which is about itself, from the user."""
  before = logging.root.manager.disable
  logging.disable(logging.WARNING)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  finally:
    logging.disable(before)
