"""The C++ kernel, compiled on this machine at its first use and kept in the user's cache."""

import ctypes
import functools
import hashlib
import os
import pathlib
import platform
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
SECONDS = 300  # that a compiler may take


class Unavailable(Exception):
  """The kernel can't be had; the message says why in one line."""


@functools.cache
def library() -> ctypes.CDLL:
  """Returns the kernel's shared library, compiled unless the cache has it.

  The name of its file is a digest of all that it depends on, so that another source, compiler,
  jaxlib or processor finds another file. A file that is not whole is compiled anew.

  Raises:
    Unavailable: no compiler, or a cache that others could write to.
  """
  command = _command(compiler())
  path = cache() / f'kernels-{_digest(command)}.so'
  if not _is_whole(path):
    _compile(command, path)
  try:
    return ctypes.CDLL(str(path))
  except OSError as error:
    raise Unavailable(f'{path} can not be loaded ({error}): remove it') from None


def compiler() -> list[str]:
  """Returns the command that compiles C++: $CXX, or the first of those that most systems have.

  Raises:
    Unavailable: there is none.
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
  """Returns the folder for compiled kernels, which nobody else may write to.

  It lies in $SPARSEJAX_CACHE, else in the user's cache folder.

  Raises:
    Unavailable: it can't be made, or others could put a library of their own there.
  """
  root = os.environ.get('SPARSEJAX_CACHE')
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  folder = pathlib.Path(root) if root else pathlib.Path(base).expanduser() / 'sparsejax'
  folder = folder / 'kernels'
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
  except (OSError, RuntimeError) as error:
    raise Unavailable(f'the cache {folder} can not be made: {error}') from None
  if hasattr(os, 'getuid') and (status.st_uid != os.getuid() or status.st_mode & 0o022):
    raise Unavailable(
      f'the cache {folder} must belong to you and be writable by nobody else: chmod 700 {folder}, '
      'or set SPARSEJAX_CACHE to a folder of your own'
    )
  return folder


def _command(compiler: Sequence[str]) -> list[str]:
  return [*compiler, *FLAGS, f'-I{jax.ffi.include_dir()}']


def _digest(command: Sequence[str]) -> str:
  parts = [SOURCE.read_text(), jaxlib.__version__, *command, platform.machine(), _processor()]
  return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:32]


def _processor() -> str:
  """The instructions that this processor has, which -march=native compiles for."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    return platform.processor()
  kept = 'flags', 'Features', 'model', 'model name', 'cpu family', 'CPU part'
  return '\n'.join(sorted({line for line in lines if line.split('\t')[0].strip() in kept}))


def _compile(command: Sequence[str], path: pathlib.Path) -> None:
  """Compiles to a file beside, completed by its checksum, which then takes the place of `path`."""
  try:
    with tempfile.TemporaryDirectory() as scratch, replacing(path) as temporary:
      made = pathlib.Path(scratch, 'kernels.so')
      subprocess.run(
        [*command, str(SOURCE), '-o', str(made)],
        capture_output=True,
        text=True,
        errors='replace',
        check=True,
        timeout=SECONDS,
      )
      library = made.read_bytes()
      temporary.write_bytes(library + hashlib.sha256(library).digest())
  except subprocess.CalledProcessError as error:
    said = next((line for line in error.stderr.splitlines() if 'error' in line), 'no message')
    raise Unavailable(f'{command[0]} failed with status {error.returncode}: {said}') from None
  except (OSError, subprocess.TimeoutExpired) as error:
    raise Unavailable(f'the kernel can not be compiled: {error}') from None


def _is_whole(path: pathlib.Path) -> bool:
  """Whether a file is a library followed by its checksum: loading a cut one could crash."""
  try:
    held = path.read_bytes()
  except OSError:
    return False
  return len(held) > 32 and hashlib.sha256(held[:-32]).digest() == held[-32:]
