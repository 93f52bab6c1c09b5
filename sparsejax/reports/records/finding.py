"""Where runs and shipments are below a folder, and the names by which they are told apart."""

import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from sparsejax.experiment.machine import files
from sparsejax.experiment.rundir.runs import BEFORE
from sparsejax.search import search_folder

RUN_FILES = (files.CONFIG, files.SUMMARY, files.METRICS)


def end(path: pathlib.Path, folder: pathlib.Path) -> str:
  """Returns the path of a run below the folder, for people: a trial's begins with its search."""
  if (search := search_folder.find_search(path)) is not None:
    return path.relative_to(search.parent).as_posix()
  return path.relative_to(folder).as_posix() if path != folder else path.name


def each_once(found: Mapping[pathlib.Path, str]) -> dict[pathlib.Path, str]:
  """Returns the runs, each by one path: its own if that was found, else the first of its links."""
  by_place: dict[str, list[pathlib.Path]] = {}
  for path in sorted(found):
    by_place.setdefault(os.path.realpath(path), []).append(path)
  chosen = [
    next((path for path in paths if str(path) == place), paths[0])
    for place, paths in by_place.items()
  ]
  return {path: found[path] for path in chosen}


def find(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields every folder of a run or a shipment, through links too, and each it cannot read.

  Links are followed after everything in the folder itself, and each place is visited once, so that
  no link leads in circles.
  """
  seen: set[str] = set()
  closed: list[OSError] = []
  waiting = [str(folder)]
  for start in waiting:  # the list grows in the loop
    for path, folders, names in os.walk(start, onerror=closed.append):
      if os.path.realpath(path) in seen:
        folders.clear()
        continue
      seen.add(os.path.realpath(path))
      folders[:] = sorted(set(folders) - {files.CHECKPOINTS})
      places = [f'{path}/{name}' for name in folders]
      waiting += [place for place in places if os.path.islink(place)]
      entries = [pathlib.Path(path, name) for name in names]
      is_unfinished = files.TEMPORARY.fullmatch(os.path.basename(path))
      is_shipment = files.SHIPPED in names and not is_unfinished
      if is_shipment or any(name in names for name in RUN_FILES):
        folders[:] = [name for name in folders if not name.startswith(BEFORE)]
        yield pathlib.Path(path)
      else:  # a link to nothing may be all that is left of a run
        yield from (entry for entry in entries if not os.path.exists(entry))
  yield from (pathlib.Path(error.filename) for error in closed)


def unique_names(paths: Sequence[pathlib.Path]) -> list[str]:
  """Returns the shortest end of each path that no other path has.

  Example:
    >>> unique_names([pathlib.Path('/a/x/seed0'), pathlib.Path('/a/y/seed0'), pathlib.Path('/a/z')])
    ['x/seed0', 'y/seed0', 'z']
  """
  ends = [['/'.join(path.parts[-n:]) for n in range(1, len(path.parts) + 1)] for path in paths]
  counts: dict[str, int] = {}
  for tail in (tail for own in ends for tail in own):
    counts[tail] = counts.get(tail, 0) + 1
  return [next((tail for tail in own if counts[tail] == 1), own[-1]) for own in ends]
