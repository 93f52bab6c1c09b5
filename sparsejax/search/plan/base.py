"""Every field of a search: its default and what it means. The other sweeps start here."""

import os
import pathlib

from ml_collections import ConfigDict

ACCURATE_AND_SPARSE = (
  dict(metric='validation_accuracy', direction='maximize'),
  dict(metric='active_fraction', direction='minimize'),
)


def above(file, name):
  """Returns the path, from here, of a config in the folder above that of a sweep's file."""
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
  # What is varied, each with its argument: of several, one of the parameters is which.
  config.configs = ('configs/quickstart.py',)
  config.overrides = ()  # of all of them, 'FIELD=VALUE' each: 'epochs=81.0'
  config.seeds = (0,)  # more than one in a grid only
  # dict(key=FIELD, kind='log_uniform' or 'uniform' or 'integers', low=, high=), or
  # dict(key=FIELD, kind='choices', choices=(...)); the key 'argument' is the config's argument.
  # The configs are built with both ends of every range and every choice before a trial begins.
  config.space = ()
  config.sampler = 'random'  # or tpe; or grid: every combination of the choices, trained in full
  config.sampler_seed = 0
  config.trials = 27  # without synchronous brackets, which know their own number

  config.scheduler = ConfigDict()
  # What trains for how long: hyperband, the paper's synchronous brackets; optuna_hyperband, its
  # asynchronous form by Optuna's pruner; none, every trial in full. R is the config's `epochs`.
  # With Optuna's pruner a trial whose process was killed counts twice: what it reported stays among
  # what others are compared with, and the trial in its place reports it again, maybe in another
  # bracket. A rung before `prune` begins compares networks that are not pruned yet: a warning says
  # so at the start.
  config.scheduler.name = 'hyperband'
  config.scheduler.eta = 3  # of the configurations in a rung one in so many goes on

  # dict(metric=, direction='minimize' or 'maximize'), metrics of validation or of counting; more
  # than one only with the scheduler none.
  config.objectives = (dict(metric='validation_loss', direction='minimize'),)
  # dict(metric=, at_most=): what breaks one is worse than all that does not, by how far it does.
  config.constraints = ()
  config.deaths = 5  # of a trial's process without a step between them, before the trial has failed
  return config
