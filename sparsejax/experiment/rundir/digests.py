"""Digests of a finished run's files, so that no later change of them is silent.

A person may change the files; any program that reads them then says so.
"""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from sparsejax.experiment.machine import files

FILE = 'digests.json'
OF = (files.CONFIG, files.ENVIRONMENT, files.METRICS, files.SUMMARY)
CHANGED = 'is not as the run wrote it'
KEY = 'sha256'  # in a file of JSON: the digest of its other content


def write(folder: pathlib.Path, summary: str) -> None:
  """Writes the digests of a run that is about to end.

  Args:
    folder: the folder of the run.
    summary: the text that summary.json will have.
  """
  found = {name: _digest(folder / name) for name in OF if name != files.SUMMARY}
  found[files.SUMMARY] = hashlib.sha256(summary.encode()).hexdigest()
  files.write_json(folder / FILE, found)


def changed(folder: pathlib.Path) -> list[str]:
  """Returns the files of a finished run that have changed, or [] if it has no digests."""
  if not (folder / FILE).exists():
    return []
  try:
    noted = dict(files.read_json(folder / FILE))
  except (OSError, ValueError, TypeError):
    return [FILE]
  return [name for name in OF if name in noted and _digest(folder / name) != noted[name]]


def warn(folder: pathlib.Path) -> None:
  """Warns about every file of a finished run that has changed."""
  for name in changed(folder):
    logging.warning('%s %s', folder / name, CHANGED)


def of_content(content: Mapping[str, Any]) -> str:
  """Returns the digest of the content of a file of JSON, without the digest that is part of it.

  Example:
    >>> of_content({'bytes': 3, 'sha256': 'any'}) == of_content({'bytes': 3})
    True
  """
  others = {name: value for name, value in content.items() if name != KEY}
  text = json.dumps(files.finite(others), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def _digest(path: pathlib.Path) -> str | None:
  try:
    return files.digest(path)
  except OSError:
    return None
