"""A digest of a user's own part: of the file with its code and of the values that it carries."""

import dataclasses
import functools
import hashlib
import inspect
import os
import re
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

# Code of these libraries counts by its name, since environment.json has their versions.
LIBRARIES = ('jax', 'jaxlib', 'optax', 'flax', 'numpy', 'ml_collections', 'sparsejax')
FUNCTIONS = types.FunctionType | types.BuiltinFunctionType | np.ufunc


def digest(part: Any) -> str:
  """Returns the sha256 of the code of a part and of every value that it carries.

  A function counts as the whole file that defines it, with its defaults and the content of its
  closure; a class as its file; an instance as its class and its fields. Files that a file imports
  do not count. Code that was typed in has no file and counts by its source or its compiled form.

  Example:
    >>> def twice(by):
    ...   return lambda weights: by * weights
    >>> digest(twice(2)) == digest(twice(2)), digest(twice(2)) == digest(twice(3))
    (True, False)
  """
  return _joined(_pieces(part, inside=()))


def _joined(pieces: Iterable[str]) -> str:
  return hashlib.sha256('\n'.join(pieces).encode()).hexdigest()


def _pieces(value: Any, inside: tuple[int, ...]) -> Iterator[str]:
  """Yields strings that together identify a value; `inside` holds the values being described."""
  if id(value) in inside:  # for example a function that calls itself
    yield f'again {len(inside) - inside.index(id(value))}'
    return
  inside = (*inside, id(value))
  if isinstance(value, np.ndarray | jax.Array):
    host = np.asarray(value)
    yield f'{host.dtype}{host.shape}{hashlib.sha256(host.tobytes()).hexdigest()}'
  elif isinstance(value, type | types.FunctionType) and not _is_library_code(value):
    yield value.__qualname__
    yield _file_or_text(value)
    yield from _each(_carried(value), inside)
  elif isinstance(value, type | FUNCTIONS):
    yield f'{value.__module__}.{getattr(value, "__qualname__", value.__name__)}'
  elif isinstance(value, types.ModuleType):
    yield value.__name__
  elif isinstance(value, Mapping):
    yield 'mapping'
    yield from _each(sorted(value.items(), key=lambda item: repr(item[0])), inside)
  elif isinstance(value, tuple | list | set | frozenset):
    yield type(value).__name__
    ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
    yield from _each((*ordered, *instance_fields(value).items()), inside)
  elif callable(value) or instance_fields(value):
    yield 'instance'
    yield from _pieces(type(value), inside)
    yield from _each(_state(value), inside)
  else:
    yield re.sub(' at 0x[0-9a-f]+', '', repr(value))


def _each(values: Iterable[Any], inside: tuple[int, ...]) -> Iterator[str]:
  return (_joined(_pieces(value, inside)) for value in values)


def _is_library_code(value: Any) -> bool:
  typed = not os.path.isfile(getattr(getattr(value, '__code__', None), 'co_filename', __file__))
  return str(value.__module__).partition('.')[0] in LIBRARIES and not typed


def _carried(code: Any) -> Iterable[Any]:
  """The values that a function carries in addition to its code."""
  if isinstance(code, type):
    return ()
  cells = [_cell_contents(cell) for cell in code.__closure__ or ()]
  return (*cells, *(code.__defaults__ or ()), *sorted((code.__kwdefaults__ or {}).items()))


def _cell_contents(cell: types.CellType) -> Any:
  try:
    return cell.cell_contents
  except ValueError:  # not assigned yet
    return None


def _state(value: Any) -> Iterable[Any]:
  """The values that identify an instance, in addition to its class."""
  if isinstance(value, functools.partial):
    return (value.func, value.args, value.keywords)
  if isinstance(value, types.MethodType):
    return (value.__self__, value.__func__)
  if hasattr(value, '__wrapped__'):  # as in functions of jax.jit
    return (value.__wrapped__,)
  return sorted(instance_fields(value).items(), key=lambda pair: pair[0])


def instance_fields(value: Any) -> dict[str, Any]:
  """Returns the fields of an instance: those of a dataclass, of its dictionary, of its slots."""
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
  slots = [
    name
    for kind in type(value).__mro__
    for name in _names(getattr(kind, '__slots__', ()))
    if hasattr(value, name) and not name.startswith('__')
  ]
  return getattr(value, '__dict__', {}) | {name: getattr(value, name) for name in slots}


def _names(slots: str | Iterable[str]) -> Iterable[str]:
  return (slots,) if isinstance(slots, str) else slots


def _file_or_text(code: Any) -> str:
  """The sha256 of the file of some code or, if it was typed in, of its source or its bytes."""
  try:
    file = inspect.getsourcefile(code) or ''  # '' cannot be opened
    with open(file, 'rb') as source:
      content = source.read()
  except (TypeError, OSError):
    try:
      content = inspect.getsource(code).encode()
    except (TypeError, OSError):
      content = _compiled(code).encode()
  return hashlib.sha256(content).hexdigest()


def _compiled(code: Any) -> str:
  """Returns the bytecode, names and constants of typed code, without the place of its typing."""
  if isinstance(code, type):
    return '\n'.join(f'{name} {_member(part)}' for name, part in sorted(vars(code).items()))
  compiled = getattr(code, '__code__', code)
  if not isinstance(compiled, types.CodeType):
    return getattr(code, '__qualname__', repr(type(code)))
  inner = [_compiled(c) if isinstance(c, types.CodeType) else repr(c) for c in compiled.co_consts]
  return '\n'.join([compiled.co_code.hex(), *compiled.co_names, *inner])


def _member(part: Any) -> str:
  if isinstance(part, types.FunctionType):
    return _compiled(inspect.unwrap(part))
  return repr(part) if isinstance(part, int | float | str | tuple) else type(part).__name__
