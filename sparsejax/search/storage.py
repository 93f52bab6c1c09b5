"""The storage of a study: a file that many processes share, or a database."""

import contextlib
import fcntl
import functools
import os
import pathlib
import time
import uuid

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, ProgrammingError

from sparsejax.experiment.machine import files
from sparsejax.search import search_folder

IDENTITY = '.identity'
TRIES = 5  # attempts to open a database, a second apart


class FileLock(JournalFileOpenLock):
  """A lock that the operating system drops when its process ends, in whatever way.

  Optuna's own locks are files, which a killed process leaves behind; the others then wait for half
  a minute.
  """

  def __init__(self, path: pathlib.Path, journal: pathlib.Path):
    super().__init__(str(path))
    self._path, self._journal = path, journal
    self._handle: int | None = None

  def acquire(self) -> bool:
    handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(handle, fcntl.LOCK_EX)
    self._handle = handle
    _cut_unfinished_line(self._journal)
    return True

  def release(self) -> None:
    handle, self._handle = self._handle, None
    if handle is not None:
      os.close(handle)


def open_storage(url: str | None, folder: pathlib.Path) -> BaseStorage:
  """Returns the storage of a study.

  Args:
    url: the URL of a database, in SQLAlchemy's form; None for a file in the folder.
    folder: the folder of the search.

  Raises:
    ValueError: the database cannot be reached, or it is SQLite, which locks no rows, so that two
      workers could take one trial.
  """
  if url is None:
    path, lock_file = folder / search_folder.STUDY, folder / '.study.lock'
    for file in (path, lock_file):
      if file.is_dir():
        raise ValueError(f'{file} is damaged (it is a folder); the search needs another workdir')
    lock = FileLock(lock_file, path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
  if url.startswith('sqlite'):
    raise ValueError(
      f'study={url}: SQLite lets two workers take one trial; give a server such as '
      'postgresql://..., or no study, for a file in the work directory'
    )
  try:
    return _open_database(url)
  except Exception as error:
    line = ' '.join(str(error).replace(url, _hide_password(url)).split())
    line = f'study={_hide_password(url)}: {line}; it must be a database that can be reached'
    raise ValueError(line) from error


def _open_database(url: str) -> RDBStorage:
  """Opens a database whose tables another process may be creating at the same moment."""
  # A connection that broke during an hour of training is opened again.
  connect = functools.partial(RDBStorage, url, engine_kwargs={'pool_pre_ping': True})
  for _ in range(TRIES):
    with contextlib.suppress(IntegrityError, ProgrammingError):
      return connect()
    time.sleep(1.0)
  return connect()


SECRETS = ('password', 'passwd', 'sslpassword')


def _hide_password(url: str) -> str:
  try:
    parsed = make_url(url)
  except ArgumentError:
    return url.rpartition('@')[2]
  hidden = {name: '***' for name in SECRETS if name in parsed.query}
  return parsed.update_query_dict(hidden).render_as_string(hide_password=True)


def identity(folder: pathlib.Path, url: str | None, *, is_new: bool = False) -> str:
  """Returns an identity of this folder that is unique and the same on every machine that sees it.

  Args:
    folder: the folder of the search.
    url: the URL of its study. A study in the folder itself needs no identity to find its runs, and
      gets ''.
    is_new: whether the search is new, so that its folder is given an identity.

  Raises:
    ValueError: the folder was copied without its identity.
  """
  file = folder / IDENTITY
  if url is None:
    return ''
  if is_new and not file.exists():
    files.write_atomically(file, uuid.uuid4().hex)
  try:
    return file.read_text()
  except FileNotFoundError:
    raise ValueError(
      f'workdir={folder} holds a search without its {IDENTITY}, by which the study knows it: copy '
      'that file too'
    ) from None


def _cut_unfinished_line(path: pathlib.Path) -> None:
  """Moves a line that a full disk or a crash cut short to a file beside the journal.

  Optuna would read nothing after such a line.
  """
  with contextlib.suppress(FileNotFoundError), path.open('rb') as file:
    end = file.seek(0, os.SEEK_END)
    if not end:
      return
    file.seek(end - 1)
    if file.read(1) != b'\n':
      file.seek(0)
      content = file.read()
      begin = content.rfind(b'\n') + 1
      files.place_beside(path, 'unfinished').write_bytes(content[begin:])
      os.truncate(path, begin)
