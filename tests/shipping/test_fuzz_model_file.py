"""10,000 damaged model files: each is read or refused in one line, within its bound."""

import collections

import fuzz_model_file as fuzz


def test_damaged_files_are_read_or_refused_in_a_line():
  counts, wrong = collections.defaultdict(collections.Counter), []
  for case, verdict in fuzz.tried(10_000, seed=0, watch=97):
    counts[case.kind][verdict.kind] += 1
    if verdict.kind == 'wrong':
      wrong.append((case.kind, verdict.said))
  assert not wrong
  assert set(counts) == set(fuzz.KINDS)
  assert all(count['refused'] for count in counts.values())
  # What is behind the checksums was reached, and what they protect was not.
  assert all(counts[kind]['read'] for kind in ('another header', 'positions, ids, words'))
  assert not any(counts[kind]['read'] for kind in ('bits flipped', 'cut short', 'foreign'))


def test_the_same_seed_draws_the_same_cases():
  one, same, other = (
    [case for case, _ in fuzz.tried(60, seed=seed, watch=97)] for seed in (3, 3, 4)
  )
  assert one == same != other


def test_what_is_wrong_with_an_answer_is_seen():
  whole = fuzz.Case('whole', fuzz.seeds()[0])
  assert fuzz.judged(whole, watched=True).kind == 'read'
  assert fuzz.judged(fuzz.Case('none', b'text')).kind == 'refused'
  assert fuzz.judged(fuzz.Case('no bytes', 'text')).kind == 'wrong'
  assert fuzz._of_message('FILE: two\nlines')[0] == 'wrong'
  assert fuzz._of_message('it is damaged')[0] == 'wrong'
  assert fuzz._of_message('FILE: it is damaged')[0] == 'refused'
