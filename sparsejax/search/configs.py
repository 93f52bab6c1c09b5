"""A config file by name, with a sweep's overrides, resolved as launch.py does it."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from sparsejax.experiment import commandline
from sparsejax.search import space


def resolver(overrides: Sequence[str]) -> Callable[[str], dict[str, Any]]:
  """Returns the function from 'configs/NAME.py:ARGUMENT' to that config's resolved settings.

  Args:
    overrides: 'field=value' each, for every config.
  """
  return functools.cache(functools.partial(_resolve, tuple(overrides)))


def _resolve(overrides: tuple[str, ...], config: str) -> dict[str, Any]:
  from configs import base

  path = config.partition(':')[0]
  try:
    loaded = base.complete(commandline.load(config))
  except FileNotFoundError as error:
    raise ValueError(f'configs: there is no {path}; allowed is a config file') from error
  except (ValueError, TypeError, AttributeError) as error:
    raise ValueError(f'configs: {config}: {commandline.one_line(error)}') from None
  loaded.name = pathlib.Path(path).stem
  settings = loaded.to_dict()
  for override in overrides:
    key, separator, text = override.partition('=')
    if not separator:
      raise ValueError(f"overrides: '{override}'; allowed is FIELD=VALUE")
    settings = space.apply(settings, {key: commandline.value_of(text)})
  return settings


def defaults(settings: dict[str, Any]) -> tuple[dict[str, Any], int]:
  """Returns the defaults that a run's directory is named after, and their version."""
  from configs import base

  # Of deterministic layers, as launch.py has it: a family of others enters the hash.
  return base.get_config(settings['chain'], settings['events']).to_dict(), base.VERSION
