"""What lies where in the folder of a search."""

import pathlib

SWEEP = 'sweep.json'  # its settings
STUDY = 'study.journal'  # the study, where no database has it
TRIALS = 'trials.json'  # how every trial stands, written anew whenever one of them ends
RUNS = 'runs'  # the run directory of each configuration
LOGS = 'workers'
DISK_FAILED = 74  # the exit status of a worker that the disk ended, as sysexits.h has it
# How a trial stands, as TRIALS has it.
FINISHED, STOPPED, FAILED, RUNNING, WAITING = 'finished', 'stopped', 'failed', 'running', 'waiting'


def search_of(run: pathlib.Path) -> pathlib.Path | None:
  """Returns the folder of the search that a run directory belongs to, if it does."""
  folder = run.parent.parent
  return folder if run.parent.name == RUNS and (folder / SWEEP).exists() else None
