"""The page on fuzzing the commands, made only from the counts of tests/fuzz/run.py.

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
# How the commands handle bad input, damaged files and signals

`tools/fuzz_page.py` makes this page from `fuzz.json`, which `tests/fuzz/run.py` writes. A case is
wrong if it ends in a traceback, in several lines, or in a line that does not name the fault; if a
command that refuses writes anything; if a file is lost; or if a figure changes without a warning.
Fewer cases than asked for are tried if the time of a part (`--minutes`) runs out.
"""
SECTIONS = {
  'settings': (
    'Settings',
    'Any value for any name in the help (blind), and values just outside and just inside their '
    'range. refused: status 2, one line, nothing written. trained: two steps, and config.json has '
    'the given values. accepted: a command that trains nothing went on; a search starts no trial '
    'here, a benchmark times nothing, reproduce.py only parses its arguments.',
  ),
  'damages': (
    'Damaged files',
    "Files of runs, a search, a cache and a user's arrays: empty, cut, one bit flipped, zeros, "
    "missing, a folder, other JSON, nested 100,000 deep, another run's. right: the same figures as "
    'undamaged, or a row of the report that names the fault. refused: in one line.',
  ),
  'signals': (
    'Signals',
    'Sent at random moments; afterwards the same command runs to its end. equal: bit for bit as '
    'without a signal. too late: equal, and the command had ended before the signal came.',
  ),
  'moments': (
    'Kills at chosen moments',
    'SIGKILL when a function of the package is entered or left, or in the compiler. In a search it '
    'kills a worker and its command, either of them, or (one worker) only the worker, which the '
    'command then restarts. Afterwards the same command runs to its end. equal: bit for bit as '
    'without a kill, and no half-written file is left.',
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
  """Returns a line for each wrong case."""
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
