"""Runs the experiments whose results are committed here, and writes their pages.

python results/reproduce.py NAME --runs=DIR [--data=DIR]

Every run is an ordinary `launch.py` in a directory of its own below DIR/NAME: finished ones are
skipped and others go on from their checkpoint, so the command can be killed and started again.
What is kept of each run goes to results/NAME: its config, environment, summary, a thinned
metrics.jsonl, and the trace of the first seed. README.md there is made of these files alone
(`--collect` makes it anew without training).
"""

import argparse
import concurrent.futures
import os
import pathlib
import queue
import re
import subprocess
import sys

import kept
import readme
from pages import PAGES, Entry

ROOT = pathlib.Path(__file__).resolve().parent.parent


def train(name: str, runs: pathlib.Path, data: str | None, jobs: int, only: str) -> bool:
  """Trains every run of a page that is not finished yet; returns whether all of them ended well.

  The first seeds come first, so that a page that was stopped shows every row.
  """
  entries = [entry for entry in PAGES[name].entries if re.search(only, entry.label)]
  planned = [(i, entry, seed) for entry in entries for i, seed in enumerate(entry.seeds)]
  cores = queue.SimpleQueue()
  # Two runs that share two cores wait for each other's threads; on macOS they must.
  available = sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else []
  for job in range(jobs):
    cores.put(set(available[job::jobs]))

  def run_one(task):
    _, entry, seed = task
    own = cores.get()
    try:
      return _launch(entry, seed, runs / name, data, own)
    finally:
      cores.put(own)

  ordered = sorted(planned, key=lambda task: task[0])
  well = []
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    for deploys in (False, True):  # what others trained once these have ended
      tasks = [task for task in ordered if bool(task[1].deploys) == deploys]
      well += pool.map(run_one, tasks)
  return all(well)


def command_of(entry: Entry, seed: int, runs: pathlib.Path, data: str | None) -> list[str]:
  """Returns what runs a row's seed, in a directory below `runs`, behind the name of a Python."""
  runs = runs.absolute()
  workdir = [f'--workdir={runs / entry.label / f"seed{seed}"}']
  place = [str(pathlib.Path(data).absolute())] if data else []
  if entry.deploys:
    source = runs / entry.deploys / f'seed{seed}'
    command = ['-m', 'sparsejax.deploy', f'--run={source}', *entry.overrides, *workdir]
    return command + [f'--data_dir={path}' for path in place]
  command = [entry.program, f'--config={entry.config}', *entry.overrides]
  command += [f'--config.seed={seed}', *workdir]
  return command + [f'--config.data.dir={path}' for path in place]


def _launch(entry, seed, runs, data, cores) -> bool:
  command = [sys.executable, *command_of(entry, seed, runs, data)]
  workdir = runs / entry.label / f'seed{seed}'
  print(*command[1:], flush=True)
  workdir.parent.mkdir(parents=True, exist_ok=True)
  log_file = workdir.with_suffix('.log')
  with log_file.open('a') as log:
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    if cores:
      os.sched_setaffinity(process.pid, cores)
    status = process.wait()
  if status:
    print(f'  failed with status {status}: see {log_file}', flush=True)
  return status == 0


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('name', choices=PAGES)
  parser.add_argument('--runs', type=pathlib.Path, required=True, help='where the runs live')
  parser.add_argument('--data', help='of tensorflow-datasets; default: its own')
  parser.add_argument('--collect', action='store_true', help='only what is finished already')
  parser.add_argument('--jobs', type=int, default=1, help='runs at a time, each on its own cores')
  parser.add_argument('--only', default='', help='a regular expression: just these rows')
  arguments = parser.parse_args()
  all_well = arguments.collect or train(
    arguments.name, arguments.runs, arguments.data, arguments.jobs, arguments.only
  )
  kept.keep(arguments.name, arguments.runs)
  readme.write(arguments.name)
  sys.exit(not all_well)


if __name__ == '__main__':
  main()
