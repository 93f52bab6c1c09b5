"""10,000 damaged model files: each is read or refused in one line, within the memory bound."""

import collections

import fuzz_model_file as fuzz


def test_damaged_files_are_read_or_refused_in_one_line():
  counts, wrong = collections.defaultdict(collections.Counter), []
  for case, verdict in fuzz.verdicts(10_000, seed=0, watch=97):
    counts[case.kind][verdict.kind] += 1
    if verdict.kind == 'wrong':
      wrong.append((case.kind, verdict.message))
  assert not wrong
  assert set(counts) == set(fuzz.KINDS)
  assert all(count['refused'] for count in counts.values())
  # Cases with valid checksums reached the decoder, and blindly damaged files never did.
  assert all(counts[kind]['read'] for kind in ('another header', 'positions, ids, words'))
  assert not any(counts[kind]['read'] for kind in ('bits flipped', 'cut short', 'foreign'))


def test_the_same_seed_draws_the_same_cases():
  one, same, other = (
    [case for case, _ in fuzz.verdicts(60, seed=seed, watch=97)] for seed in (3, 3, 4)
  )
  assert one == same != other


def test_wrong_answers_are_detected():
  whole = fuzz.Case('whole', fuzz.seeds()[0])
  assert fuzz.judge(whole, watched=True).kind == 'read'
  assert fuzz.judge(fuzz.Case('none', b'text')).kind == 'refused'
  assert fuzz.judge(fuzz.Case('no bytes', 'text')).kind == 'wrong'
  assert fuzz._judge_message('FILE: two\nlines')[0] == 'wrong'
  assert fuzz._judge_message('it is damaged')[0] == 'wrong'
  assert fuzz._judge_message('FILE: it is damaged')[0] == 'refused'
