"""Exports parameters, without the network, to the safetensors format."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sparsejax.internal.atomic import replacing, write_synced
from sparsejax.internal.needs import needed
from sparsejax.sparsity.leaves import tree


def safetensors(
  path: str | os.PathLike[str], params: Any, config: Mapping[str, Any] | None = None
) -> None:
  """Writes parameters as a safetensors file, each under its path, such as 'params/fc1/kernel'.

  Before the file replaces an older one it is read back and must be equal to the bit. The format is
  dense: zeros take as many bytes as other numbers.

  Args:
    path: the file to write.
    params: any pytree of arrays.
    config: the file's metadata, such as {'model': 'lenet300', 'widths': {'fc1': 40}}. Values other
      than strings are written as JSON, since the metadata of the format is text.

  Raises:
    ModuleNotFoundError: the package safetensors is not installed.
    ValueError: the format lacks a leaf's dtype, or JSON cannot hold the config.
    OSError: the file cannot be written, or reading it back gives different values.

  Example:
    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / 'model.safetensors'
    >>> params = {'fc1': {'kernel': np.eye(2, dtype=np.float32)}}
    >>> safetensors(path, params, config={'model': 'tiny', 'widths': [2]})
    >>> from safetensors import safe_open
    >>> with safe_open(path, 'np') as file:
    ...   file.metadata(), file.get_tensor('fc1/kernel').tolist()
    ({...'widths': '[2]'...}, [[1.0, 0.0], [0.0, 1.0]])
  """
  with needed('export'):
    from safetensors import SafetensorError
    from safetensors.numpy import save
  path = pathlib.Path(path)
  metadata = _to_texts(config or {})
  leaves = tree.named_leaves(jax.device_get(params))
  arrays = {name: np.asarray(leaf, order='C') for name, leaf in leaves.items()}
  try:
    data = save(arrays, metadata)
  except (SafetensorError, KeyError) as error:
    dtypes = ', '.join(sorted({str(array.dtype) for array in arrays.values()}))
    raise ValueError(f'dtypes={dtypes} must be dtypes of safetensors: {error}') from error
  with replacing(path) as temporary:
    write_synced(temporary, data)
    if _read(temporary) != (metadata, _shapes_and_bytes(arrays)):
      raise OSError(f'{path} was not written: reading it back gave different values')


def _to_texts(config: Mapping[str, Any]) -> dict[str, str]:
  """Returns the values of a config as strings; those that are not strings become JSON."""
  texts = {}
  for key, value in config.items():
    try:
      texts[key] = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
      raise ValueError(f"config['{key}'] must be what JSON can hold: {error}") from None
  return texts


def _shapes_and_bytes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[list[int], bytes]]:
  """Returns {name: (shape, bytes)} of arrays."""
  return {name: (list(array.shape), array.tobytes()) for name, array in arrays.items()}


def _read(path: pathlib.Path) -> tuple[dict[str, str], dict[str, tuple[list[int], bytes]]]:
  """Returns a file's metadata, and {name: (shape, bytes)} of its arrays."""
  from safetensors import deserialize, safe_open

  with safe_open(path, 'np') as file:
    metadata = file.metadata() or {}
  rows = deserialize(path.read_bytes())
  return metadata, {name: (list(row['shape']), bytes(row['data'])) for name, row in rows}
