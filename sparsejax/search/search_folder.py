"""The names of the files in the folder of a search."""

import pathlib

SWEEP = 'sweep.json'  # its settings
STUDY = 'study.journal'  # the study, unless a database holds it
TRIALS = 'trials.json'  # the state of every trial, written anew whenever one of them ends
RUNS = 'runs'  # the run directory of each configuration
LOGS = 'workers'
DISK_FAILED = 74  # the exit status of a worker that a disk error ended, as in sysexits.h
# The states of a trial in TRIALS.
FINISHED, STOPPED, FAILED, RUNNING, WAITING = 'finished', 'stopped', 'failed', 'running', 'waiting'


def find_search(run: pathlib.Path) -> pathlib.Path | None:
  """Returns the folder of the search that a run directory belongs to, or None if it is of none."""
  folder = run.parent.parent
  return folder if run.parent.name == RUNS and (folder / SWEEP).exists() else None
