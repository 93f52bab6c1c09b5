"""The flags of `sparsejax.ship`, all checked before anything is read."""

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sparsejax.experiment.terminal.arguments import Parser, folder, path_text
from sparsejax.experiment.terminal.errors import UsageError
from sparsejax.experiment.terminal.say import shown
from sparsejax.internal import needs
from sparsejax.shipping import sharing
from sparsejax.shipping.export.onnx import PACKAGES

AUTO = 'auto'
POSTERIOR = 'posterior'
FILE = 'file'
# The file name of each format.
NAMES = {
  FILE: 'model.sparse',
  'onnx': 'model.onnx',
  'stablehlo': 'model.stablehlo',
  'safetensors': 'model.safetensors',
}
# {format: (extra, packages)} of formats that need more than the extra `experiments`.
NEEDS = {'onnx': ('onnx', PACKAGES)}
FLAGS = {
  'bits': None,
  'tolerance': 0.005,
  'epochs': 0,
  'learning_rate': 1e-4,
  'format': FILE,
  'rounds': 7,
  'data_dir': None,
  'parts': None,
}


class Request(NamedTuple):
  """The options of a shipment.

  Attributes:
    run: the directory of a finished run.
    out: the folder to write.
    bits: the number of bits of a layer's cluster indices, one for all layers or by layer; 'auto'
      for the fewest within the tolerance; 'posterior' for those that the run's posterior gives each
      layer; None shares no weights.
    tolerance: the validation accuracy that 'auto' may lose.
    epochs: the number of epochs for which the shared values are trained.
    learning_rate: the learning rate of Adam, which trains them.
    formats: the names of the formats, the model file's first.
    rounds: the number of rounds in which the networks are timed.
    data_dir: the folder of the data; None for the folder in the run's config.
    parts: a Python file that registers parts that the run uses; None if it needs none.
  """

  run: pathlib.Path
  out: pathlib.Path
  bits: sharing.Bits | str | None
  tolerance: float
  epochs: int
  learning_rate: float
  formats: tuple[str, ...]
  rounds: int
  data_dir: str | None
  parts: str | None

  @property
  def content_options(self) -> dict[str, Any]:
    """The options that change the files, as in shipped.json."""
    # The first pattern that fits a layer counts, so their order matters.
    bits = self.bits if isinstance(self.bits, int | str | None) else [*map(list, self.bits.items())]
    names = ('tolerance', 'epochs', 'learning_rate')
    others = {name: getattr(self, name) for name in names}
    return {'bits': bits, **others, 'formats': list(self.formats)}


def read(argv: Sequence[str]) -> Request:
  """Returns the options of a command line.

  Args:
    argv: the command line without the command's name.

  Raises:
    UsageError: a flag is unknown, missing, out of range, or has no effect with the others.

  Example:
    >>> read(['--run=runs/a', '--out=shipped', '--bits=conv=8,.*=5']).bits
    {'conv': 8, '.*': 5}
  """
  parser = Parser(prog='ship', add_help=False, allow_abbrev=False)
  for name in ('run', 'out', *FLAGS):
    parser.add_argument(f'--{name}')
  try:
    given = {name: text for name, text in vars(parser.parse_args(argv)).items() if text is not None}
  except ValueError as error:
    raise UsageError(f'{error}; --help lists the flags') from None
  for name, what in (('run', 'a finished run'), ('out', 'a folder to write')):
    if not given.get(name):
      raise UsageError(f'--{name} is missing: it must be --{name}=DIR, {what}')
  flags: dict[str, Any] = {**FLAGS, **given}
  bits = _bits(given.get('bits'))
  request = Request(
    run=pathlib.Path(path_text('--run', flags['run'], 'a finished run')),
    out=folder('--out', flags['out']),
    bits=bits,
    tolerance=_number('tolerance', flags['tolerance'], float, 0, 1),
    epochs=_number('epochs', flags['epochs'], int, 0),
    learning_rate=_number('learning_rate', flags['learning_rate'], float, 0),
    formats=_formats(flags['format']),
    rounds=_number('rounds', flags['rounds'], int, 1),
    data_dir=flags['data_dir'],
    parts=flags['parts'],
  )
  _check_all_have_effect(given, request)
  return request


def _check_all_have_effect(given: Mapping[str, str], request: Request) -> None:
  """Raises a UsageError for a flag that has no effect with the other flags."""
  for name, is_read, needed in (
    ('tolerance', request.bits == AUTO, f'--bits={AUTO}'),
    ('epochs', request.bits is not None or not request.epochs, '--bits'),
    ('learning_rate', request.epochs > 0, '--epochs'),
  ):
    if name in given and not is_read:
      raise UsageError(f'--{name}={given[name]} must be given with {needed}, or nothing reads it')


def _bits(text: str | None) -> sharing.Bits | str | None:
  """Returns the bits of '4', 'conv=8,.*=5', 'auto' or 'posterior' for `Request`; None if none."""
  if text is None or text in (AUTO, POSTERIOR):
    return text
  found: dict[str, int] = {}
  for part in text.split(','):
    pattern, separator, width = part.rpartition('=')
    is_number = width.strip().isdecimal() and len(width) < 10
    if not is_number or (separator and not pattern) or pattern in found:
      raise UsageError(
        f'--bits={shown(text)} must be a number from 1 to {sharing.MOST_BITS}, '
        f'LAYER=NUMBER,LAYER=NUMBER, {AUTO} or {POSTERIOR}'
      )
    found[pattern] = int(width)
    try:
      sharing.whole_bits(found[pattern])
    except ValueError as error:
      raise UsageError(f'--bits={shown(text)}: {error}') from None
  if len(found) > 1 and '' in found:
    raise UsageError(f'--bits={shown(text)} must name the layer of each number')
  return found.get('', found)


def _number(name: str, text: Any, kind: type, low: float, high: float | None = None) -> Any:
  """Returns the number of a flag, after checking it.

  Args:
    name: the flag.
    text: its text, or its default.
    kind: int or float.
    low: the smallest value.
    high: the largest value; None if there is none.

  Raises:
    UsageError: the text is not such a number.
  """
  try:
    value = kind(text)
  except ValueError:
    value = None
  if value is None or not low <= value < float('inf') or (high is not None and value > high):
    what = 'a whole number' if kind is int else 'a number'
    which = f', {low} or more' if high is None else f' from {low} to {high}'
    raise UsageError(f'--{name}={shown(text)} must be {what}{which}')
  return value


def _formats(text: str) -> tuple[str, ...]:
  """Returns the formats of a list such as 'onnx,stablehlo', and always the model file.

  Raises:
    UsageError: a format is unknown, or a package that it needs is not installed.
  """
  asked = [part.strip() for part in text.split(',')]
  if unknown := [part for part in asked if part not in NAMES]:
    raise UsageError(f'--format={shown(unknown[0])} must be a list of {", ".join(NAMES)}')
  for name in asked:
    extra, packages = NEEDS.get(name, ('', ()))
    for package in packages:
      if not importlib.util.find_spec(package):
        what = needs.missing(ModuleNotFoundError(name=package), extra)
        raise UsageError(f'--format={name}: {what}')
  return tuple(name for name in NAMES if name in asked or name == FILE)
