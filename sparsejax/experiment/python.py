"""Experiments from Python or a notebook: `sparsejax.run` and `sparsejax.load`."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from sparsejax import models
from sparsejax.experiment import run as runner
from sparsejax.experiment.config import base, commandline, fields, loading, overrides
from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir import checkpoint, digests, runs
from sparsejax.experiment.terminal.arguments import folder, path_text
from sparsejax.experiment.terminal.errors import UsageError, in_one_line
from sparsejax.experiment.terminal.say import printable, shown
from sparsejax.experiment.training import registry


def run(
  config: ConfigDict | Mapping[str, Any] | str | os.PathLike,
  workdir: str | os.PathLike | None = None,
  name: str = '',
  restart: bool = False,
) -> dict[str, Any]:
  """Trains an experiment, or resumes it where it stopped; returns its summary.

  Args:
    config: a config as a config file's `get_config` returns it, or 'NAME.py:ARGUMENT'.
    workdir: the run directory; by default results/runs/NAME-HASH8/seedK below the current folder.
    name: the name of the experiment; by default the config's own.
    restart: whether to begin at step 0; whatever `workdir` holds is moved to a folder in it.

  Returns:
    The content of the run directory's summary.json.

  Raises:
    UsageError: says in one line why this cannot be run; nothing has been compiled or written.

  Example:
    >>> import contextlib, io, tempfile
    >>> from sparsejax.experiment.config import base
    >>> config = base.get_config()
    >>> config.epochs = 1.0
    >>> with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
    ...   summary = run(config, workdir=f'{folder}/run', name='dense')
    >>> summary['parameters']
    50610
  """
  if not isinstance(name, str):
    raise UsageError(f'name={shown(name)} must be a string')
  if not isinstance(restart, bool):
    raise UsageError(f'restart={shown(restart)} must be True or False')
  if workdir is not None:
    workdir = folder('workdir', path_text('workdir', workdir, 'a folder, or None'))
  settings = _settings(config, name)
  settings['name'] = settings['name'] or 'experiment'
  defaults = base.defaults(settings)
  return runner.run(settings, defaults, version=base.VERSION, workdir=workdir, restart=restart)


def _settings(config: Any, name: str) -> dict[str, Any]:
  """The checked settings of a config, in whichever form it is given."""
  if isinstance(config, Mapping | ConfigDict):
    return commandline.checked(config, name)
  what = "a ConfigDict, as a config file's get_config() returns it, or a string 'NAME.py:ARGUMENT'"
  arguments = overrides.ConfigArguments(path_text('config', config, what), {}, ())
  settings = commandline.resolve_arguments(arguments)
  return commandline.checked(settings, name) if name else settings


class Loaded(NamedTuple):
  """A finished run.

  Attributes:
    model: the deterministic network; call `model.apply(variables, images, train=False)`.
    variables: the variables of the network that the run delivers.
    config: the run's settings, as in config.json.
    summary: its figures.
  """

  model: Any
  variables: Mapping[str, Any]
  config: Mapping[str, Any]
  summary: Mapping[str, Any]


def load(run: str | os.PathLike, parts: str | os.PathLike | None = None) -> Loaded:
  """Returns the network that a finished run delivers, with its config and its figures.

  The data set is not needed.

  Args:
    run: the run directory.
    parts: a Python file, such as a config, that registers the run's model; needed only if the model
      is your own and nothing imported so far registers it.

  Raises:
    UsageError: the run is unfinished or damaged, or nothing has registered its model.
    UnreadableError: the disk gave an error.
  """
  path = pathlib.Path(path_text('run', run, 'the directory of a finished run'))
  if parts is not None:
    loading.execute(pathlib.Path(path_text('parts', parts, 'a file of Python, or None')))
  try:
    config, summary = (files.read_json(path / file) for file in (files.CONFIG, files.SUMMARY))
    owner = checkpoint.common_owner(config, summary)
    if missing := registry.missing(config, kinds=('model',)):  # no other part is needed here
      raise UsageError(f'run={printable(path)}: {missing}')
    kept = checkpoint.best_folder(str(path))
    shapes = {'batch_stats': {}, **checkpoint.read_shapes(kept)}  # an empty tree leaves no note
    variables, _ = checkpoint.read(kept, shapes, owner, is_finished=True)
    if (classes := runs.num_classes(summary)) is None:
      raise ValueError('summary.json must have num_classes or the units of its layers')
    block = fields.FIELDS['model']
    assert isinstance(block, Mapping)
    settings = {**fields.values(block), **config['model']}  # older runs lack some
    model = models.create(
      settings['name'],
      classes,
      **{size: settings[size] for size in models.SIZES},
      widths=settings['widths'],
      dropout=settings['dropout'],
      dtype=settings['dtype'],
    )
  except UsageError:
    raise
  except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
    what = f'run={printable(path)} must be the directory of a finished run'
    raise UsageError(f'{what}: {in_one_line(error)}') from error
  digests.warn(path)
  return Loaded(model, variables, config, summary)
