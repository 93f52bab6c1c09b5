"""The page of what was tried on the commands, made of the counts of tests/fuzz/run.py alone.

python tests/fuzz/run.py --settings=1000 --damages=400 --signals=50 --moments=50 \
    --out=results/fuzz/fuzz.json
python -m tools.fuzz_page
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sparsejax.reports.text.markdown import table
from tools.pages import kept

FOLDER = kept.RESULTS / 'fuzz'
COUNTS = 'fuzz.json'
HEAD = """\
# What the commands do with what they can't use

Made by `tools/fuzz_page.py` of `fuzz.json`, which `tests/fuzz/run.py` wrote. Wrong is: a
traceback, more than one line, a line that doesn't name what is wrong, anything written by a command
that refuses, a file that is gone, and another figure without a word. Tried is less than asked for
where the time of a part (`--minutes`) was over before.
"""
SECTIONS = {
  'settings': (
    'Settings',
    'Any value for any name that the help lists (blind), and values just beyond and just within '
    'the definitions. refused: status 2, one line, nothing written. trained: two steps, and '
    'config.json holds what was given. accepted: a command that trains nothing went on; a search '
    'begins no trial here, a benchmark times nothing, reproduce.py only reads its arguments.',
  ),
  'damages': (
    'Damaged files',
    'Files of runs, of a search, of a cache and of own arrays: empty, cut, one bit flipped, zeros, '
    "missing, a folder, other JSON, nested 100,000 deep, another run's. right: the figures of the "
    'undamaged one, or a row of the report that says what is wrong. refused: in one line.',
  ),
  'signals': (
    'Signals',
    'At random moments; afterwards the same command runs to its end. equal: to the bit, as of a '
    'command left alone. too late: equal, and the command had ended before the signal came.',
  ),
  'moments': (
    'Kills at chosen moments',
    'SIGKILL as a function of the package is entered or left, or in the compiler; in a search it '
    'strikes a worker and its command, one of them, or (one worker) the worker alone, which the '
    'command then starts anew. Afterwards the same command runs to its end. equal: to the bit, as '
    'of a command left alone, and nothing half written is left.',
  ),
}


def text_of(found: Mapping[str, Any]) -> str:
  """Returns the page.

  Args:
    found: the counts and the wrong cases of each part.
  """
  parts = [_section(part, found[part]) for part in SECTIONS if part in found]
  return '\n'.join([HEAD, *parts])


def _section(part: str, found: Mapping[str, Any]) -> str:
  title, text = SECTIONS[part]
  counts = found['counts']
  kinds = sorted({kind for row in counts.values() for kind in row} | {'wrong'})
  kinds = [*(kind for kind in kinds if kind != 'wrong'), 'wrong']
  rows = []
  for name, row in counts.items():
    cells = [
      name,
      *(f'{count:,}' for count in (sum(row.values()), *(row.get(k, 0) for k in kinds))),
    ]
    rows.append(' | '.join(cells))
  lines = [f'## {title}', '', f'{text} Seed {found["seed"]}; asked for: {found["asked"]:,}.', '']
  lines += [*table(' | '.join(['what', 'tried', *kinds]), rows), '', *_wrong(found['wrong'])]
  return '\n'.join(lines)


def _wrong(cases: Sequence[Mapping[str, str]]) -> list[str]:
  """A line for each wrong case."""
  if not cases:
    return []
  found = [
    ' '.join(f'{k}={v[:60]!r}' for k, v in case.items() if k != 'said' and k != 'half')
    for case in cases
  ]
  return ['Wrong:', '', *(f'- `{line.replace("`", "?")}`' for line in found), '']


def main() -> None:
  """Writes the page."""
  (FOLDER / 'README.md').write_text(text_of(kept.read(FOLDER / COUNTS)))


if __name__ == '__main__':
  main()
