"""A config's argument, such as `vgg16,0.05` after its colon, read by get_config's parameters."""

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

from sparsejax.internal.lookup import nearest


def read(make: Callable[..., Any], text: str) -> list[Any]:
  """Returns the arguments to call a config's function with.

  A parameter is annotated as a Literal of strings, as float or int (also `float | None`), or is a
  string. If a function has a single parameter without annotation, it gets the whole argument.

  Raises:
    ValueError: the argument does not fit the parameters.

  Example:
    >>> def get_config(network: Literal['vgg16', 'resnet20'], density: float = 0.05): ...
    >>> read(get_config, 'vgg16,0.1')
    ['vgg16', 0.1]
    >>> read(get_config, 'vgg61')
    Traceback (most recent call last):
    ValueError: network 'vgg61' must be vgg16 or resnet20; did you mean 'vgg16'?
  """
  parameters = list(inspect.signature(make, eval_str=True).parameters.values())
  is_whole = len(parameters) == 1 and parameters[0].annotation is inspect.Parameter.empty
  parts = [] if not text else [text] if is_whole else text.split(',')
  if parts and not parameters:
    raise ValueError('this config takes no argument after its name')
  if len(parts) > len(parameters):
    raise ValueError(f'the argument must be {_shape(parameters)}')
  for parameter in parameters[len(parts) :]:
    if parameter.default is inspect.Parameter.empty:
      raise ValueError(
        f'the argument must be {_shape(parameters)}, where {parameter.name} is {_says(parameter)}'
      )
  return [_convert(*given) for given in zip(parameters, parts, strict=False)]


def _shape(parameters: list[inspect.Parameter]) -> str:
  """The form of the argument, such as NETWORK[,DENSITY]."""
  text = ''
  for parameter in reversed(parameters):
    is_first = parameter is parameters[0]
    text = f'{"" if is_first else ","}{parameter.name.upper()}{text}'
    text = text if parameter.default is inspect.Parameter.empty else f'[{text}]'
  return text


def _kind(parameter: inspect.Parameter) -> Any:
  """The annotation, or the first of several that are joined by `|`."""
  kind = parameter.annotation
  return kind if get_origin(kind) in (None, Literal) else get_args(kind)[0]


def _says(parameter: inspect.Parameter) -> str:
  kind = _kind(parameter)
  if get_origin(kind) is Literal:
    *first, last = get_args(kind)
    return f'{", ".join(first)} or {last}' if first else last
  return {float: 'a number', int: 'an integer'}.get(kind, 'a string')


def _convert(parameter: inspect.Parameter, text: str) -> Any:
  kind = _kind(parameter)
  wrong = f'{parameter.name} {text!r} must be {_says(parameter)}'
  if get_origin(kind) is Literal and text not in get_args(kind):
    near = nearest(text, get_args(kind))
    raise ValueError(f'{wrong};{near}' if near else wrong)
  if kind not in (float, int):
    return text
  try:
    return kind(text)
  except ValueError:
    raise ValueError(wrong) from None
