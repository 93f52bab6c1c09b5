"""Every field of a search: its default and its meaning. The other sweeps start from here."""

import os
import pathlib

from ml_collections import ConfigDict

ACCURATE_AND_SPARSE = (
  dict(metric='validation_accuracy', direction='maximize'),
  dict(metric='active_fraction', direction='minimize'),
)


def above(file, name):
  """Returns the path, from the current directory, of a config in the folder above a sweep's."""
  return os.path.relpath(pathlib.Path(file).resolve().parent.parent / name)


def grid(configs, arguments):
  """Every config with every argument and three seeds, in full: accuracy against active fraction."""
  config = get_config()
  config.configs = configs
  config.seeds = (0, 1, 2)
  config.sampler = 'grid'
  config.scheduler.name = 'none'
  config.space = (dict(key='argument', kind='choices', choices=arguments),)
  config.objectives = ACCURATE_AND_SPARSE
  return config


def get_config():
  """The defaults: nothing varies yet."""
  config = ConfigDict()
  # The configs to vary, each with its argument; if there are several, the choice is a parameter.
  config.configs = ('configs/quickstart.py',)
  config.overrides = ()  # for all of them, each 'FIELD=VALUE', such as 'epochs=81.0'
  config.seeds = (0,)  # more than one is possible only in a grid
  # dict(key=FIELD, kind='log_uniform' or 'uniform' or 'integers', low=, high=), or
  # dict(key=FIELD, kind='choices', choices=(...)); the key 'argument' is the config's argument.
  # Before the first trial the configs are built with both ends of every range and every choice.
  config.space = ()
  config.sampler = 'random'  # or tpe; or grid: every combination of the choices, trained in full
  config.sampler_seed = 0
  config.trials = 27  # not read with synchronous brackets, which fix the number themselves

  config.scheduler = ConfigDict()
  # How long each trial trains: hyperband, the paper's synchronous brackets; optuna_hyperband, the
  # asynchronous form of Optuna's pruner; none, every trial in full. R is the config's `epochs`.
  # With Optuna's pruner a trial whose process was killed counts twice: its reports stay among those
  # that others are compared with, and the trial that replaces it reports again, perhaps in another
  # bracket. A rung before `prune` begins compares networks that are not pruned yet; a warning at
  # the start says so.
  config.scheduler.name = 'hyperband'
  config.scheduler.eta = 3  # one in `eta` configurations of a rung goes on

  # dict(metric=, direction='minimize' or 'maximize'), with a validation metric or a count; more
  # than one is possible only with the scheduler none.
  config.objectives = (dict(metric='validation_loss', direction='minimize'),)
  # dict(metric=, at_most=): trials that break one rank below all others, by how far they exceed it.
  config.constraints = ()
  config.deaths = 5  # a trial fails when its process dies more often than this without progress
  return config
