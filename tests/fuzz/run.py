"""Tries the commands on what they can't use, and counts what comes of it.

python tests/fuzz/run.py --settings=1000 --damages=400 --signals=50 --moments=50
    [--seed=0] [--out=FILE.json]

--settings=N    values for settings, half of them blind, half from the definitions: settings.py
--damages=N     damaged files of runs, searches and caches, each read by a command: damage.py
--signals=N     signals at random moments of the commands, which are then run again: signals.py
--moments=N     SIGKILL at chosen moments of the commands, which are then run again: moments.py
--minutes=M     that each of these may take
--seed=S        the same seed draws the same cases

What of these is given is tried; what an earlier FILE.json says of the others stays in it. Prints
every wrong case. Exit status: 0 when there was none, 1 when there was one.
"""

import argparse
import collections
import json
import os
import pathlib
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PARTS = ('settings', 'damages', 'signals', 'moments')


def main() -> int:
  """Runs the program; returns its exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  for part in PARTS:
    parser.add_argument(f'--{part}', type=int, default=0)
  parser.add_argument('--minutes', type=float, default=60.0)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path)
  arguments = parser.parse_args()
  found = {}
  with tempfile.TemporaryDirectory(prefix='sparsejax-fuzz-') as folder:
    _prepare(pathlib.Path(folder))
    for part in PARTS:
      if count := getattr(arguments, part):
        place = pathlib.Path(folder) / part
        place.mkdir()
        found[part] = counted(part, count, arguments.seed, place, arguments.minutes)
        print(json.dumps(found[part]['counts']), flush=True)
  if arguments.out:  # which another process may have written to by now
    there = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    arguments.out.write_text(json.dumps(there | found, indent=2) + '\n')
  return int(any(one['wrong'] for one in found.values()))


def _prepare(folder: pathlib.Path) -> None:
  """Has this process and its children train on one CPU device, with caches of their own."""
  sys.path.append(str(ROOT))
  os.environ |= {
    'JAX_PLATFORMS': 'cpu',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'SPARSEJAX_CACHE': str(folder / 'data'),
  }
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder / 'compiled'))


def counted(part: str, count: int, seed: int, folder: pathlib.Path, minutes: float) -> dict:
  """Returns the counts of a part, in all and by command, and its wrong cases."""
  import damage
  import moments
  import settings
  import signals

  tried = dict(zip(PARTS, (settings, damage, signals, moments), strict=True))[part].tried
  by_row: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  wrong, begun = [], time.monotonic()
  for case, verdict in tried(count, seed, folder, until=begun + 60 * minutes):
    for row in rows_of(part, case):
      by_row[row][verdict.kind] += 1
    if verdict.kind == 'wrong':
      said = {'why': verdict.why, 'said': verdict.said.replace(str(folder), 'FOLDER')}
      wrong.append({k: str(v)[:300] for k, v in case._asdict().items()} | said)
      print(json.dumps(wrong[-1]), flush=True)
  counts = {row: dict(sorted(kinds.items())) for row, kinds in sorted(by_row.items())}
  return {'seed': seed, 'asked': count, 'counts': counts, 'wrong': wrong}


def rows_of(part: str, case) -> tuple[str, ...]:
  """Returns the rows of the table that a case is counted in."""
  if part == 'settings':
    return ('all', f'{case.half}: {case.command}')
  if part == 'damages':
    return ('all', f'{case.source}, read by {case.reader}')
  return ('all', f'{case.command}, {case.signal if part == "signals" else case.kind}')


if __name__ == '__main__':
  sys.exit(main())
