"""Compiles the C++ kernel on this machine at its first use and keeps it in the user's cache."""

import ctypes
import functools
import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

import jax
import jaxlib

from sparsejax.internal.atomic import replacing

SOURCE = pathlib.Path(__file__).with_name('kernels.cc')
COMPILERS = 'c++', 'g++', 'clang++'
FLAGS = ('-O2', '-march=native', '-std=c++17', '-shared', '-fPIC', '-fno-math-errno')
TIMEOUT_SECONDS = 300  # for the compiler
CHECKSUM_BYTES = hashlib.sha256().digest_size  # at the end of the library's file
DIGEST_LETTERS = 32  # in a file name


class Unavailable(Exception):
  """The kernel cannot be compiled or loaded; the message gives the reason in one line."""


@functools.cache
def library() -> ctypes.CDLL:
  """Returns the kernel's shared library, compiled unless the cache has it.

  The name of its file is a digest of all that it depends on: the source, the compiler, its version
  and flags, jaxlib, and the instructions of the processor. A processor without some of them thus
  does not load the file of another that shares its home folder. An incomplete file is compiled
  again.

  Raises:
    Unavailable: there is no compiler, compiling or loading fails, or others could write to the
      cache.
  """
  command = _command(compiler())
  path = cache() / f'kernels-{_digest(command)}.so'
  if not _is_complete(path):
    _compile(command, path)
  try:
    return ctypes.CDLL(str(path))
  except OSError as error:
    raise Unavailable(f'{path} cannot be loaded ({error}): remove it') from None


def compiler() -> list[str]:
  """Returns the command of the C++ compiler: $CXX, or the first of c++, g++ and clang++.

  Raises:
    Unavailable: there is no C++ compiler.
  """
  if chosen := shlex.split(os.environ.get('CXX', '')):
    if shutil.which(chosen[0]):
      return chosen
    raise Unavailable(f'CXX={shlex.join(chosen)} must be a C++ compiler, and is not found')
  for name in COMPILERS:
    if found := shutil.which(name):
      return [found]
  raise Unavailable('no C++ compiler is found: install g++ or clang++, or set CXX to one')


def cache() -> pathlib.Path:
  """Returns the folder of compiled kernels, created if it does not exist.

  It is in $SPARSEJAX_CACHE, or else in the user's cache folder. Only the user may write to it,
  since the files in it are loaded as code.

  Raises:
    Unavailable: the folder cannot be created, or others can write to it.
  """
  root = os.environ.get('SPARSEJAX_CACHE')
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  folder = pathlib.Path(root) if root else pathlib.Path(base).expanduser() / 'sparsejax'
  folder = folder / 'kernels'
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
  except (OSError, RuntimeError) as error:
    raise Unavailable(f'the cache {folder} cannot be created: {error}') from None
  if hasattr(os, 'getuid') and (status.st_uid != os.getuid() or status.st_mode & 0o022):
    raise Unavailable(
      f'the cache {folder} must belong to you and be writable by nobody else: chmod 700 {folder}, '
      'or set SPARSEJAX_CACHE to a folder of your own'
    )
  return folder


def _command(compiler: Sequence[str]) -> list[str]:
  """Returns the compiler's command line, without the source and the output."""
  return [*compiler, *FLAGS, f'-I{jax.ffi.include_dir()}']


def _digest(command: Sequence[str]) -> str:
  """Returns a digest of all that the compiled library depends on."""
  parts = [SOURCE.read_text(), jaxlib.__version__, *command, _predefined(command)]
  return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:DIGEST_LETTERS]


def _predefined(command: Sequence[str]) -> str:
  """Returns the macros that the compiler predefines.

  They give its version and, through -march=native, each set of instructions that it would use on
  this processor.
  """
  return _run([*command, '-dM', '-E', '-x', 'c++', os.devnull])


def _compile(command: Sequence[str], path: pathlib.Path) -> None:
  """Compiles the kernel and writes the library, followed by its checksum, atomically to `path`."""
  try:
    with tempfile.TemporaryDirectory() as scratch, replacing(path) as temporary:
      output = pathlib.Path(scratch, 'kernels.so')
      _run([*command, str(SOURCE), '-o', str(output)])
      library = output.read_bytes()
      temporary.write_bytes(library + hashlib.sha256(library).digest())
  except OSError as error:
    raise Unavailable(f'the kernel cannot be compiled: {error}') from None


def _run(command: Sequence[str]) -> str:
  """Runs the compiler and returns what it prints.

  Raises:
    Unavailable: it cannot be run, or it fails.
  """
  try:
    done = subprocess.run(
      command,
      capture_output=True,
      text=True,
      errors='replace',
      check=True,
      timeout=TIMEOUT_SECONDS,
    )
  except subprocess.CalledProcessError as error:
    message = next((line for line in error.stderr.splitlines() if 'error' in line), 'no message')
    raise Unavailable(f'{command[0]} failed with status {error.returncode}: {message}') from None
  except (OSError, subprocess.TimeoutExpired) as error:
    raise Unavailable(f'the kernel cannot be compiled: {error}') from None
  return done.stdout


def _is_complete(path: pathlib.Path) -> bool:
  """Returns whether a file is a library followed by its checksum; loading part of one can crash."""
  try:
    content = path.read_bytes()
  except OSError:
    return False
  library, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
  return len(library) > 0 and hashlib.sha256(library).digest() == checksum
