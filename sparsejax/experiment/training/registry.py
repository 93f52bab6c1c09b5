"""A user's own parts, which a config may name, and their code as part of a run's hash.

A config file, or a package that it imports, registers them: `sparsejax.register(kind, name, part)`.
"""

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple

from sparsejax import models, posterior
from sparsejax.experiment.chain import links, pruning_links
from sparsejax.experiment.config import fields
from sparsejax.experiment.config.setting_kinds import REGISTERED_NAMES
from sparsejax.experiment.data import sources
from sparsejax.experiment.data.splits import Whole
from sparsejax.experiment.step import events
from sparsejax.experiment.training import own_code, parts
from sparsejax.internal.lookup import lookup
from sparsejax.posterior.families.family import check as check_family
from sparsejax.posterior.layers import DETERMINISTIC


class Own(NamedTuple):
  """A registered part.

  Attributes:
    kind: a name in `KINDS`.
    name: the name that a config uses.
    digest: the digest of its code.
    place: its name within its file.
  """

  kind: str
  name: str
  digest: str
  place: str


class Kind(NamedTuple):
  """A kind of part that can be registered.

  Attributes:
    table: the parts by name.
    made: (name, part, settings) -> the table's entry.
    used: the names in the table that some settings use.
  """

  table: Callable[[], MutableMapping[str, Any]]
  made: Callable[[str, Any, Mapping[str, Any]], Any]
  used: Callable[[Mapping[str, Any]], Any]


def _same(name, part, settings):
  return part


def _ignore_settings(name, part, settings):
  return lambda settings: part()


def _event(name, part, settings):
  fields.add_event(name, settings)
  return part


def _posterior(name, part, settings):
  check_family(part, {other: f for other, f in posterior.FAMILIES.items() if other != name})
  fields.add_layers(name, part)
  return part


def _part(key):
  names = pruning_links.PRUNING_LINKS
  return lambda settings: [(settings.get(link) or {}).get(key) for link in names]


KINDS: dict[str, Kind] = {
  'link': Kind(links.known, _same, lambda s: links.unfold(s['chain'], s)),
  'criterion': Kind(lambda: pruning_links.CRITERIA, _same, _part('criterion')),
  'allocation': Kind(lambda: pruning_links.ALLOCATIONS, _same, _part('allocation')),
  'granularity': Kind(lambda: pruning_links.GRANULARITIES, _ignore_settings, _part('granularity')),
  'update_rule': Kind(lambda: pruning_links.UPDATE_RULES, _ignore_settings, _part('update_rule')),
  'model': Kind(lambda: models.MODELS, _same, lambda s: [s['model']['name']]),
  'data': Kind(lambda: sources.SOURCES, _same, lambda s: [s['data']['name']]),
  'event': Kind(lambda: events.EVENTS, _event, lambda s: s['events']),
  'posterior': Kind(
    lambda: posterior.FAMILIES,
    _posterior,
    lambda s: [s['layers']] if s['layers'] != DETERMINISTIC else [],
  ),
}
_own: dict[tuple[str, str], Own] = {}


def register(kind: str, name: str, part: Any, settings: Mapping[str, Any] | None = None) -> None:
  """Makes a user's own part known under a name that a config may use.

  | kind | part |
  |---|---|
  | link | (settings) -> optax.GradientTransformation; its settings are its arguments |
  | criterion | (weights, ...) -> scores, as those of `sparsejax.criteria` |
  | allocation | () -> an allocation, as those of `sparsejax.allocation` |
  | granularity | () -> a granularity, as those of `sparsejax.granularity` |
  | update_rule | () -> a rule, as those of `sparsejax.update_rules` |
  | model | a `sparsejax.models.network.Network`, or a function that makes one |
  | data | a function (folder, cache) -> `Whole`, by way of `data_set` |
  | event | (state, settings, context) -> state |
  | posterior | a `sparsejax.posterior.Family`, which `layers` then names |

  The file with the part's code, and the values that the part carries, are part of the hash of every
  run that uses it; files that it imports do not.

  Args:
    kind: the kind of the part.
    name: the name that a config uses.
    part: the part, as in the table.
    settings: the defaults of an event's settings besides `at_epochs`, numbers or strings; a setting
      that must be an integer needs an integer as its default.

  Raises:
    ValueError: the kind is unknown, the name is impossible or taken by another part, or the part
      is not of its kind.

  Example:
    >>> import jax.numpy as jnp
    >>> def squared(weights):
    ...   return jnp.square(weights)
    >>> register('criterion', 'squared_for_this_example', squared)
  """
  known = lookup('kind of part', kind, KINDS)
  parts.check_name(kind, name)
  own = Own(kind, name, own_code.digest(part), parts.place(part))
  table = known.table()
  before = _own.get((kind, name))
  is_built_in = name in table and before is None
  is_another = before is not None and before != own
  if is_built_in or is_another:
    raise ValueError(f'register: the {kind} {name!r} exists already: give another name')
  parts.check(kind, part, settings)
  if _is_name_taken(kind, name):
    raise ValueError(
      f'register: the {kind} {name!r}: a config has something else with that name: give another '
      'name'
    )
  try:
    table[name] = known.made(name, part, settings or {})
  except ValueError as error:
    raise ValueError(f'register: the {kind} {name!r}: {error}') from error
  _own[kind, name] = own
  REGISTERED_NAMES.setdefault(kind, set()).add(name)


def _is_name_taken(kind: str, name: str) -> bool:
  """Returns whether a field of a config, or a block of another kind of part, has that name."""
  if kind not in parts.BLOCK_KINDS:
    return False
  others = [other for other in parts.BLOCK_KINDS if other != kind]
  is_block = any(name in KINDS[other].table() for other in others)
  return is_block or name in {*fields.FIELDS, DETERMINISTIC}


def data_set(
  read: Callable[[Any, bool], Whole], num_classes: int, validation: int
) -> sources.Source:
  """Returns a data set that can be registered.

  Args:
    read: (folder or None, whether to cache) -> `Whole(train, test)`, each a `Split` of uint8 images
      (examples, height, width, channels) and integer labels.
    num_classes: the number of classes.
    validation: the number of examples held out unless a config says otherwise.
  """
  return sources.Source(read, num_classes, validation)


def digests(settings: Mapping[str, Any]) -> dict[str, str]:
  """Returns the digest of the code of every own part that the settings use."""
  return {
    f'{own.kind}.{own.name}': own.digest
    for own in _own.values()
    if own.name in KINDS[own.kind].used(settings)
  }


def missing(settings: Mapping[str, Any], kinds: Iterable[str] = tuple(KINDS)) -> str:
  """Returns a message about an own part that a run's settings use but nothing registered, or ''.

  Example:
    >>> missing({'chain': ['sgd'], 'events': ['mine']})
    "there is no event 'mine': parts=FILE must name the file that registers it"
  """
  for kind in kinds:
    known = KINDS[kind]
    try:
      names = [name for name in known.used(settings) if isinstance(name, str)]
    except (AttributeError, KeyError, TypeError):  # the run is damaged, and is refused elsewhere
      continue
    unknown = [name for name in names if name not in known.table() and name[:4] != 'npz:']
    if unknown:
      return f"there is no {kind} '{unknown[0]}': parts=FILE must name the file that registers it"
  return ''
