"""Mutation testing: seeds small faults in the package and runs the tests that reach each.

  python -m tools.mutants list mutants.json --count=40 --seed=0    # picks the faults
  python -m tools.mutants reach mutants.json old.json --at=COMMIT  # runs the suite once
  python -m tools.mutants run mutants.json old.json --at=COMMIT    # tries those without a verdict
  python -m tools.mutants run mutants.json new.json old.json       # starts with tests that failed
  python -m tools.mutants compare mutants.json old.json new.json   # those only the old suite finds

A test reaches a mutant if it evaluates the changed expression, even in a process that it starts.
One run of the suite, with a probe at each of the expressions, finds the tests of all mutants.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

from tools import faults

NOTICED = ('killed', 'timeout')
USAGE = 4  # pytest's status for a test that does not exist
PROBE = """import os
SEEN = set()
def hit(mutant):
  test = os.environ.get('PYTEST_CURRENT_TEST', '').rpartition(' (')[0]
  if test and (mutant, test) not in SEEN:
    SEEN.add((mutant, test))
    with open(os.environ['MUTANT_HITS'], 'a') as file:
      file.write(f'{mutant}\\t{test}\\n')
"""


class Checkout:
  """A commit in its own folder, which programs that run there import."""

  def __init__(self, commit):
    self._commit = commit

  def __enter__(self):
    self._folder = tempfile.TemporaryDirectory(prefix='mutants-')
    self.root = pathlib.Path(self._folder.name) / 'checkout'
    subprocess.run(
      ['git', 'worktree', 'add', '--quiet', '--detach', self.root, self._commit], check=True
    )
    return self

  def __exit__(self, *_):
    subprocess.run(['git', 'worktree', 'remove', '--force', self.root], check=True)
    self._folder.cleanup()

  def write(self, mutants, key):
    """Replaces the lines of mutants by their `key` ('new' or 'probe'); returns those found."""
    found = []
    for number, mutant in mutants.items():
      path = self.root / mutant['path']
      by = [line.replace('NUMBER', str(number)) for line in mutant[key]]
      text = faults.replaced(path.read_text(), mutant, by) if path.exists() else None
      if text is not None:
        path.write_text(text)
        found.append(number)
    return found

  def restore(self):
    subprocess.run(['git', 'checkout', '--quiet', '.'], cwd=self.root, check=True)

  def pytest(self, *arguments, seconds=None, **environment):
    """Returns pytest's status (None after `seconds`) and its output."""
    # Python reuses compiled code if the source's size and second are the same.
    environment |= os.environ | {'PYTHONPATH': str(self.root), 'PYTHONDONTWRITEBYTECODE': '1'}
    command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', '-rfE', '--tb=line']
    process = subprocess.Popen(
      [*command, *arguments], cwd=self.root, env=environment, start_new_session=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
      output, _ = process.communicate(timeout=seconds)
      return process.returncode, output
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      return None, process.communicate()[0]


def failed(output):
  """Returns the tests that pytest's summary names as failed."""
  return re.findall(r'^(?:FAILED|ERROR) (.+?)(?: - .*)?$', output, re.MULTILINE)


def reach(mutants, commit, processes, paths):
  """Runs a suite once; returns each mutant's tests, those of the quickest files first.

  Tests that fail with only the probes in place are left out, since they say nothing.
  """
  with Checkout(commit) as checkout:
    found = checkout.write(dict(enumerate(mutants)), 'probe')
    (checkout.root / 'mutant_probe.py').write_text(PROBE)
    hits = checkout.root.parent / 'hits'
    hits.touch()
    asked = '-n', str(processes), '--durations=0', '-v', *paths
    _, output = checkout.pytest(*asked, MUTANT_HITS=str(hits))
    reached = {tuple(line.split('\t')) for line in hits.read_text().splitlines()}
  seconds = collections.defaultdict(float)
  durations = re.findall(r'^ *([\d.]+)s (?:setup|call|teardown) +(.+?)::', output, re.MULTILINE)
  for spent, file in durations:
    seconds[file] += float(spent)
  fails = failed(output)
  tests = {number: [] for number in found}
  for number, test in sorted(reached, key=lambda hit: (seconds[hit[1].partition('::')[0]], hit[1])):
    if test not in fails:
      tests[int(number)].append(test)
  return {'tests': tests, 'failed': fails}


def attempt(checkout, number, mutant, rounds, most):
  """Returns the tests' verdict on a mutant, by rounds of tests, and the tests that gave it."""
  begun, verdict, flaky = time.monotonic(), 'not reached', []

  def result(verdict, by=()):
    spent = round(time.monotonic() - begun)
    return {'verdict': verdict, 'by': by, 'flaky': flaky, 'seconds': spent}

  for tests in filter(None, rounds):
    while True:
      if not checkout.write({number: mutant}, 'new'):
        return result('not found')
      others = (f'--deselect={test}' for test in flaky)
      status, output = checkout.pytest('-n', '0', '-x', *tests, *others, seconds=most)
      checkout.restore()
      by = failed(output)
      if status is None:
        return result('timeout')
      if status == USAGE:  # this commit lacks one of the tests
        break
      if not status:
        verdict = 'survived'
        break
      if not by or not checkout.pytest('-n', '0', *by)[0]:
        return result('killed', by)
      flaky += by  # it fails without the mutant too
  return result(verdict)


def run(mutants, path, known, commit, most, jobs):
  """Tries every mutant without a verdict of a suite, beginning with the tests in `known`."""
  suite = json.loads(path.read_text()) if path.exists() else {'tests': {}}
  results = suite.setdefault('results', {})
  left = iter([str(number) for number in range(len(mutants)) if str(number) not in results])
  lock = threading.Lock()

  def work(_):
    with Checkout(commit) as checkout:
      while (number := next(left, None)) is not None:
        rounds = known.get(number, {}).get('by'), suite['tests'].get(number)
        found = attempt(checkout, number, mutants[int(number)], rounds, most)
        with lock:
          results[number] = found
          path.write_text(json.dumps(suite, indent=1))
        print(number, results[number]['verdict'], *results[number]['by'], flush=True)

  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    list(pool.map(work, range(jobs)))


def described(mutant):
  return f'{mutant["path"]}:{mutant["line"]} {mutant["function"]}, {mutant["operator"]}:' + ''.join(
    f'\n  {sign} {line.strip()}' for sign in ('old', 'new') for line in mutant[sign]
  )


def compare(mutants, old, new):
  """Prints a line of counts for each suite, then the mutants that only the old one notices."""
  verdicts = []
  for path in (old, new):
    results = json.loads(path.read_text())['results']
    verdicts.append([results[str(number)]['verdict'] for number in range(len(mutants))])
    print(path, dict(collections.Counter(verdicts[-1])))
  for mutant, before, after in zip(mutants, *verdicts, strict=True):
    if before in NOTICED and after not in NOTICED:
      print(f'{before}, then {after}: {described(mutant)}')


def main():
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('command', choices=('list', 'reach', 'run', 'compare'))
  parser.add_argument('mutants', type=pathlib.Path)
  parser.add_argument('suites', type=pathlib.Path, nargs='*')
  parser.add_argument('--count', type=int, default=40)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--at', default='HEAD', help='the commit of the package and its tests')
  parser.add_argument('--tests', nargs='*', default=[], help='the tests to run; default: all')
  parser.add_argument('--jobs', type=int, default=2, help='processes at a time')
  parser.add_argument('--seconds', type=float, default=600, help='the most that a mutant may take')
  given = parser.parse_args()
  if given.command == 'list':
    mutants = faults.choose(pathlib.Path.cwd(), given.count, given.seed)
    given.mutants.write_text(json.dumps(mutants, indent=1))
    print(*(f'{i} {described(mutant)}' for i, mutant in enumerate(mutants)), sep='\n')
    return
  mutants = json.loads(given.mutants.read_text())
  if given.command == 'compare':
    compare(mutants, *given.suites)
  elif given.command == 'run':
    known = [json.loads(other.read_text())['results'] for other in given.suites[1:]]
    run(mutants, given.suites[0], *(known or [{}]), given.at, given.seconds, given.jobs)
  else:
    suite = reach(mutants, given.at, given.jobs, given.tests)
    given.suites[0].write_text(json.dumps(suite, indent=1))


if __name__ == '__main__':
  main()
