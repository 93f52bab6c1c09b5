"""What changes the digest of a user's own part: its file, its closure, its fields."""

import dataclasses
import functools
import itertools
import subprocess
import sys
import textwrap

import jax
import numpy as np
import optax
import pytest
import registered

from sparsejax import launch
from sparsejax.experiment.config import commandline, loading
from sparsejax.experiment.training import setup
from sparsejax.experiment.training.own_code import digest
from sparsejax.experiment.training.registry import data_set


def shaped(weights, by=1.0, of=None, kinds=()):
  return weights


def scaled(by):
  return lambda weights: by * weights


def recursive(by):
  def scores(weights, depth=0):
    return weights * by if depth else scores(weights, 1)

  return scores


class Scaled:
  def __init__(self, by):
    self.by = by

  def __call__(self, weights):
    return self.by * weights

  def scores(self, weights):
    return self(weights)


class Slotted:
  __slots__ = ('by',)

  def __init__(self, by):
    self.by = by

  def __call__(self, weights):
    return self.by * weights


@dataclasses.dataclass(frozen=True)
class Fielded:
  by: float

  def __call__(self, weights):
    return self.by * weights


@pytest.mark.parametrize(
  'make',
  [
    scaled,
    recursive,
    Scaled,
    Slotted,
    Fielded,
    lambda by: Scaled(by).scores,
    lambda by: jax.jit(scaled(by)),
    lambda by: functools.partial(shaped, by=by),
    lambda by: functools.partial(shaped, kinds=(1, {'a': by})),
    lambda by: functools.partial(shaped, of=by * np.eye(1, 5000, 2500)),  # shown in part only
    lambda by: data_set(scaled(by), 2, 1),
    lambda by: data_set(shaped, by, 1),
    lambda by: scaled({'by': [Scaled(by)]}),
    lambda by: lambda weights, by=by: by * weights,
    lambda by: lambda weights, *, by=by: by * weights,
  ],
)
def test_what_a_part_carries_tells_it_from_others(make):
  assert digest(make(2)) == digest(make(2))
  assert digest(make(2)) != digest(make(3))


def test_parts_of_other_functions_and_files_differ():
  parts = [shaped, launch.main, Scaled, optax.adam, functools.partial(launch.main)]
  parts += [functools.partial(shaped), functools.partial(shaped, of=launch.main)]
  for one, other in itertools.combinations(parts, 2):
    assert digest(one) != digest(other)


CLASS = """
import dataclasses

@dataclasses.dataclass
class Mine:
  by: 'float' = 1.0

  def __call__(self, weights):
    return weights  # CHANGED HERE
"""


@pytest.mark.parametrize('ahead', ['', 'from __future__ import annotations\n'])
@pytest.mark.parametrize('part', ['Mine', 'Mine()', 'Mine().__call__'])
def test_the_file_of_a_class_is_part_of_its_digest(tmp_path, ahead, part):
  text = f'{ahead}{CLASS}\npart = {part}\n'
  found = []
  for folder, content in [('a', text), ('b', text), ('c', text.replace('-weights', '- weights'))]:
    file = tmp_path / folder / 'config.py'
    file.parent.mkdir()
    file.write_text(content)
    found.append(digest(loading.execute(file).part))
  file.write_text(text.replace('return weights', 'return -weights'))
  found.append(digest(loading.execute(file).part))
  assert found[0] == found[1] == found[2] != found[3]


def typed(text):
  """The digest of a part in a program that comes by standard input, which has no file."""
  program = textwrap.dedent(text) + '\nprint(digest(part))\n'
  ahead = 'from sparsejax.experiment.training.own_code import digest\n'
  command = [sys.executable, '-']
  done = subprocess.run(command, input=ahead + program, capture_output=True, text=True, check=True)
  return done.stdout


def test_code_without_a_file_counts_by_what_it_does():
  both = (
    'class Part:\n  power = {}\n  def __call__(self, w):\n    return {} * w ** self.power\npart = '
  )
  texts = [
    *(f'def part(w):\n  return {by} * w' for by in (2, 3)),
    *(both.format(power, by) + 'Part' for power, by in ((1, 2), (1, 3), (2, 2))),
    both.format(1, 2) + 'Part()',
  ]
  found = [typed(text) for text in texts]
  assert len(set(found)) == len(texts)
  assert typed('\n\n' + texts[0]) == found[0]


def test_a_registered_class_is_part_of_the_hash(tmp_path):
  ahead = 'import sparsejax\nfrom sparsejax.models.lenet import LeNet300\n'
  ahead += 'from configs.quickstart import get_config as quick\n'
  text = ahead + textwrap.dedent("""
    class Mine(LeNet300):
      width_of_my_own = 1

    sparsejax.register('model', 'mine', Mine)

    def get_config():
      config = quick()
      config.model.name = 'mine'
      return config
  """)
  hashes = set()
  for number, content in enumerate([text, text.replace('own = 1', 'own = 2')]):
    file = tmp_path / f'config{number}.py'
    file.write_text(content)
    registered.forget()
    found = setup.build(commandline.resolve([f'--config={file}'])).digests
    hashes.add(found['model.mine'])
  registered.forget()
  assert len(hashes) == 2
