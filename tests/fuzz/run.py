"""Tries the commands on what they can't use, and counts the results.

python tests/fuzz/run.py --settings=1000 --damages=400 --signals=50 --moments=50
    [--seed=0] [--skip=N] [--out=FILE.json]

--settings=N    values for settings, half of them blind, half from the definitions: settings.py
--damages=N     damaged files of runs, searches, caches, shipments, each then read: damage.py
--signals=N     signals at random moments of the commands, which are then run again: signals.py
--moments=N     SIGKILL at chosen moments of the commands, which are then run again: moments.py
--minutes=M     that each of these may take
--seed=S        the same seed draws the same cases
--skip=N        the cases of signals or moments that FILE.json has counted: it goes on after them

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
  parser.add_argument('--skip', type=int, default=0)
  parser.add_argument('--out', type=pathlib.Path)
  arguments = parser.parse_args()
  asked = [part for part in PARTS if getattr(arguments, part)]
  if arguments.skip and asked not in (['signals'], ['moments']):
    parser.error(f'--skip={arguments.skip} must stand with either --signals or --moments alone')
  found = {}
  with tempfile.TemporaryDirectory(prefix='sparsejax-fuzz-') as folder:
    _prepare(pathlib.Path(folder))
    for part in asked:
      place = pathlib.Path(folder) / part
      place.mkdir()
      more = {'skip': arguments.skip} if arguments.skip else {}
      count = getattr(arguments, part)
      found[part] = counted(part, count, arguments.seed, place, arguments.minutes, **more)
      print(json.dumps(found[part]['counts']), flush=True)
  if arguments.out:  # which another process may have written to by now
    there = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    if arguments.skip:
      found = {asked[0]: added(there[asked[0]], found[asked[0]])}
    arguments.out.write_text(json.dumps(there | found, indent=2) + '\n')
  return int(any(one['wrong'] for one in found.values()))


def _prepare(folder: pathlib.Path) -> None:
  """Makes this process and its children train on one CPU device, with their own caches."""
  sys.path.append(str(ROOT))
  os.environ |= {
    'JAX_PLATFORMS': 'cpu',
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
    'SPARSEJAX_CACHE': str(folder / 'data'),
  }
  os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder / 'compiled'))


def added(before: dict, after: dict) -> dict:
  """Returns the counts and wrong cases of two runs, the second of which continued the first."""
  rows = sorted({*before['counts'], *after['counts']})
  counts = {}
  for row in rows:
    both = [collections.Counter(one['counts'].get(row, {})) for one in (before, after)]
    counts[row] = dict(sorted((both[0] + both[1]).items()))
  return {**after, 'counts': counts, 'wrong': [*before['wrong'], *after['wrong']]}


def counted(
  part: str, count: int, seed: int, folder: pathlib.Path, minutes: float, **more: int
) -> dict:
  """Returns the counts of a part, in all and by command, and its wrong cases."""
  import damage
  import moments
  import settings
  import signals

  tried = dict(zip(PARTS, (settings, damage, signals, moments), strict=True))[part].tried
  by_row: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  wrong, begun = [], time.monotonic()
  for case, verdict in tried(count, seed, folder, until=begun + 60 * minutes, **more):
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
