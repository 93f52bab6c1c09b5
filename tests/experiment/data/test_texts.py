"""Texts: windows, the standard library's files, and a grammar whose entropy is known."""

import collections
import math
import pathlib
import sysconfig
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejax.experiment.data import datasets, grammar, texts


@given(st.binary(min_size=2, max_size=60), st.data())
def test_windows_do_not_overlap_and_cover_the_text(text, draw):
  context = draw.draw(st.integers(1, len(text) - 1))
  cut = texts.windows(texts.as_split(text), context)
  covered = (len(text) - 1) // context * context
  assert cut.images.tobytes() == text[:covered]
  assert bytes(cut.labels.ravel().tolist()) == text[1 : covered + 1]
  assert cut.images.shape == cut.labels.shape == (covered // context, context)
  assert (cut.images.dtype, cut.labels.dtype) == (np.uint8, np.int32)


def test_each_file_of_the_standard_library_is_in_one_split():
  folder = pathlib.Path(sysconfig.get_paths()['stdlib'])
  whole = texts.read_library()
  held_out = {'validation': 1, 'test': 0}
  sizes = collections.Counter()
  for path in folder.glob('*.py'):
    if not path.name.startswith('_sysconfigdata'):
      sizes[texts.part_of(path.name)] += path.stat().st_size
  assert all(len(getattr(whole, part).images) == sizes[n] - 1 for part, n in held_out.items())
  assert len(whole.train.images) == sum(sizes[n] for n in range(2, texts.PARTS)) - 1
  first = min(path for path in folder.glob('*.py') if texts.part_of(path.name) == 0)
  assert whole.test.images.tobytes().startswith(first.read_bytes())


def test_a_text_is_known_by_its_content(monkeypatch):
  text = datasets.load('text')
  assert text.is_text
  assert text.num_classes == 256
  assert text.digest == datasets.load('text', context=7).digest
  before = texts.read_library()
  changed = before._replace(test=texts.as_split(b'other'))
  source = datasets.SOURCES['text']._replace(read=lambda directory, cache: changed)
  monkeypatch.setitem(datasets.SOURCES, 'text', source)
  assert datasets.load('text', context=2).digest != text.digest


def test_the_entropy_of_a_choice_is_that_of_the_choice():
  found = grammar.rate({'S': ((8, ('a',)), (4, ('b',)), (4, ('cde',)))}, 'S')
  assert found.entropy == pytest.approx(1.5 * math.log(2))
  assert found.length == pytest.approx(0.5 + 0.25 + 0.75)


def test_the_entropy_of_the_grammar_by_hand():
  """A name and the kind of an expression take 7/4 bits each, an operator 3/2.

  So an expression of H bits and L bytes has H = 7/4 + 1/2 7/4 + 1/4 (3/2 + 2 H) + 1/8 2 H + 1/8 H,
  that is 24, and L = 1/2 19/4 + 1/4 (4 + 2 L) + 1/8 (4 + 2 L) + 1/8 (1 + L), that is 32.
  """
  found = grammar.rate()
  assert found.entropy == pytest.approx(24 * math.log(2))
  assert found.length == pytest.approx(32 + 1)
  assert found.per_byte == pytest.approx(8 / 11 * math.log(2))


def test_the_choices_can_be_told_from_the_text():
  """All alternatives of a symbol begin with bytes of their own, and their shares sum to one."""

  def first(part):
    found = grammar.RULES.get(part)
    return {part[0]} if found is None else {b for _, way in found for b in first(way[0])}

  for ways in grammar.RULES.values():
    begins = [first(expansion[0]) for _, expansion in ways]
    assert sum(map(len, begins)) == len(set.union(*begins))
    assert sum(sixteenths for sixteenths, _ in ways) == 16


def test_a_sample_has_the_shares_and_the_length_that_it_should():
  lines = grammar.sample(200_000, 7).decode().split('\n')[:-1]
  lengths = np.array([len(line) + 1 for line in lines])
  error = lengths.std() / math.sqrt(len(lengths))
  assert abs(lengths.mean() - 33) < 4 * error
  names = collections.Counter(part for line in lines for part in line.split() if part.isalpha())
  assert set(names) == {'alpha', 'beta', 'gamma', 'delta'}


def test_the_grammar_is_the_same_for_good():
  # Drawn once and written down: the name of this data set stands for its content.
  assert zlib.crc32(grammar.sample(10_000, 0)) == 1031274441
  assert datasets.load('grammar').digest is None


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'name': 'digits', 'context': 8}, "data.context=8 must be None: the examples of 'digits'"),
    ({'name': 'grammar', 'validation': 8}, "data.validation=8 must be None: 'grammar' has"),
    ({'name': 'grammar', 'context': 0}, 'data.context=0 must be from 1 to'),
    ({'name': 'grammar', 'context': 200_000}, 'data.context=200000 must be from 1 to 99999'),
    ({'name': 'grammar', 'limit': 9_000}, 'data.limit=9000 must be from 1 to 7812'),
  ],
)
def test_impossible_settings_are_refused_in_one_line(settings, message):
  with pytest.raises(ValueError, match=message):
    datasets.load(**settings)
