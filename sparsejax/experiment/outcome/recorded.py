"""A run's settings, read back from its config.json, even if it is older than some settings.

A new setting's default is what was done before the setting existed, and is not hashed. So a run
that lacks the setting gets the default, and is still the same run if its hash is the same.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.experiment.config import check, fields, identity
from sparsejax.experiment.machine import files
from sparsejax.experiment.terminal.errors import UsageError


class Recorded(NamedTuple):
  """The settings of a run.

  Attributes:
    settings: all of today's, with defaults for those that are newer than the run.
    newer: the dotted names of the newer ones.
  """

  settings: dict[str, Any]
  newer: tuple[str, ...]


def complete(path: pathlib.Path, config: Mapping[str, Any]) -> Recorded:
  """Returns a run's settings as they were before they became JSON, with those that it lacks.

  Args:
    path: the run directory, for the message.
    config: the content of its config.json without the hash; it has `chain`, `events` and `layers`.

  Raises:
    UsageError: a setting is unknown today, or has a value that it cannot have.
  """
  found = restore_tuples(dict(config))
  newer = []
  used = check.used_blocks(found)
  blocks = {name: block for name, block in fields.BLOCKS.items() if name in used}
  for name, known in {**fields.FIELDS, **blocks}.items():
    if isinstance(known, fields.Field):
      newer += [name] if name not in found else []
      found.setdefault(name, known.default)
    elif isinstance(block := found.get(name, {}), dict):
      given = set(map(fields.strip_unit, block))
      added = [key for key in known if fields.strip_unit(key) not in given]
      newer += [f'{name}.{key}' for key in added]
      found[name] = block | {key: known[key].default for key in added}
  try:
    check.check(found, all_read=False)
  except ValueError as error:
    raise UsageError(f'run={path}: its {files.CONFIG}: {error}') from None
  return Recorded(found, tuple(newer))


def hash8(
  recorded: Recorded,
  defaults: Mapping[str, Any],
  version: int,
  digests: Mapping[str, str] | None = None,
) -> str:
  """Returns the hash that a run with these settings gets today; the arguments are `identity`'s.

  Blocks that the defaults lack, such as those of layers with posteriors, are hashed in full, so
  what is newer than the run is left out of them.
  """
  known = identity.flatten(defaults)
  skipped = {name for name in recorded.newer if name not in known}
  own = {
    name: {key: one for key, one in value.items() if f'{name}.{key}' not in skipped}
    if isinstance(value, dict)
    else value
    for name, value in recorded.settings.items()
  }
  return identity.hash8(own, defaults, version, digests)


def check_hash(path: pathlib.Path, told: str, now: str, newer: Sequence[str] = ()) -> None:
  """Raises a UsageError if a run's settings, data or start are not what it was trained on.

  Args:
    path: the run directory.
    told: the hash in its files.
    now: the hash of its settings, data and start today.
    newer: the names of the settings that are newer than it.
  """
  if told == now:
    return
  if newer:
    others = f' and {len(newer) - 1} more' if len(newer) > 1 else ''
    raise UsageError(
      f"run={path}: it is of another version, whose {files.CONFIG} has no '{newer[0]}'{others}: "
      f'its hash is {told}, but its settings, data and start now make {now}; give a run of this '
      'version'
    )
  raise UsageError(
    f'run={path}: its hash is {told}, but its settings, data and start now make {now}; give a run '
    'with the same data and defaults'
  )


def restore_tuples(settings: Any) -> Any:
  """Returns the settings with tuples for lists: JSON has no tuples, and no setting is a list."""
  if isinstance(settings, dict):
    return {name: restore_tuples(value) for name, value in settings.items()}
  if isinstance(settings, list):
    return tuple(map(restore_tuples, settings))
  return settings
