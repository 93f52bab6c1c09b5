"""The compiled kernel's file: cached, complete and the user's own, or an error with the reason."""

import pathlib
import platform
import shutil
import subprocess
import sys

import pytest

from sparsejax.cpu_sparse import compiling

LIBRARY = 'extern "C" int answer() { return 42; }\n'  # in place of the kernel, compiled at once


@pytest.fixture
def own(tmp_path, monkeypatch):
  """Sets a temporary cache and a short source; returns the folder of compiled kernels."""
  source = tmp_path / 'source.cc'
  source.write_text(LIBRARY)
  monkeypatch.setattr(compiling, 'SOURCE', source)
  monkeypatch.setenv('SPARSEJAX_CACHE', str(tmp_path))
  return tmp_path / 'kernels'


def has_compiler():
  return any(map(shutil.which, compiling.COMPILERS))


compiles = pytest.mark.skipif(not has_compiler(), reason='there is no C++ compiler')


def load():
  return compiling.library.__wrapped__()


@compiles
def test_the_library_is_compiled_once_and_cached(own, monkeypatch):
  assert load().answer() == 42
  [library] = own.iterdir()

  def refuse(*_):
    raise AssertionError('the library is cached')

  monkeypatch.setattr(compiling, '_compile', refuse)
  assert load().answer() == 42
  assert list(own.iterdir()) == [library]


@compiles
@pytest.mark.parametrize('damage', [lambda b: b[:100], lambda b: b'', lambda b: b[:-1] + b'\0\0'])
def test_a_damaged_file_is_compiled_again(own, damage):
  load()
  [library] = own.iterdir()
  content = library.read_bytes()
  library.unlink()  # this process may have it mapped
  library.write_bytes(damage(content))
  assert load().answer() == 42
  assert compiling._is_complete(library)


@compiles
def test_a_changed_source_has_its_own_file(own):
  load()
  compiling.SOURCE.write_text(LIBRARY.replace('42', '43'))
  assert load().answer() == 43
  assert len(list(own.iterdir())) == 2


@compiles
def test_another_processor_or_compiler_version_has_its_own_file(own, tmp_path, monkeypatch):
  """As -march=native makes files that another processor may not run from a shared home folder."""
  macros, script = tmp_path / 'macros', tmp_path / 'compiler'
  [real] = compiling.compiler()
  script.write_text(f'#!/bin/sh\ncase "$*" in *-dM*) cat {macros};; *) exec {real} "$@";; esac')
  script.chmod(0o700)
  monkeypatch.setenv('CXX', str(script))
  one, later, wider = 'version 1, AVX', 'version 2, AVX', 'version 1, AVX, AVX512F'
  for number, defined in enumerate([one, later, wider], 1):
    macros.write_text(defined)
    assert load().answer() == 42
    assert len(list(own.iterdir())) == number
  macros.write_text(one)
  monkeypatch.setattr(compiling, '_compile', None)
  assert load().answer() == 42


@compiles
def test_the_compiler_tells_its_version_and_the_instructions_of_the_processor():
  native = compiling._predefined(compiling._command(compiling.compiler()))
  assert '__VERSION__' in native
  assert native == compiling._predefined(compiling._command(compiling.compiler()))
  if platform.machine() == 'x86_64':
    assert '__AVX512F__' in compiling._predefined([*compiling.compiler(), '-march=skylake-avx512'])
    assert '__AVX512F__' not in compiling._predefined([*compiling.compiler(), '-march=x86-64'])


@compiles
def test_two_processes_compile_at_once(own):
  program = (
    'import pathlib, sys; from sparsejax.cpu_sparse import compiling; '
    'compiling.SOURCE = pathlib.Path(sys.argv[1]); print(compiling.library().answer())'
  )
  root = pathlib.Path(compiling.__file__).parents[2]
  both = [
    subprocess.Popen(
      [sys.executable, '-c', program, str(compiling.SOURCE)], cwd=root, stdout=subprocess.PIPE
    )
    for _ in range(2)
  ]
  assert [process.communicate()[0] for process in both] == [b'42\n', b'42\n']
  assert len(list(own.iterdir())) == 1


@compiles
def test_a_compilation_error_is_reported_in_one_line(own):
  compiling.SOURCE.write_text('nonsense;')
  with pytest.raises(compiling.Unavailable, match=r'failed with status 1: .*error') as raised:
    load()
  assert '\n' not in str(raised.value)
  assert not list(own.iterdir())


def test_a_cache_that_others_can_write_to_is_refused(own):
  own.mkdir()
  own.chmod(0o777)
  with pytest.raises(compiling.Unavailable, match=r'must belong to you .* chmod 700'):
    compiling.cache()


def test_a_cache_that_cannot_be_created(tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('SPARSEJAX_CACHE', str(tmp_path / 'file'))
  with pytest.raises(compiling.Unavailable, match='cannot be created'):
    compiling.cache()


def test_a_missing_compiler_is_reported(monkeypatch):
  monkeypatch.delenv('CXX', raising=False)
  monkeypatch.setattr(compiling.shutil, 'which', lambda name: None)
  with pytest.raises(compiling.Unavailable, match='install g\\+\\+ or clang\\+\\+, or set CXX'):
    compiling.compiler()


def test_the_compiler_of_the_environment(monkeypatch):
  monkeypatch.setenv('CXX', f'{sys.executable} -I')
  assert compiling.compiler() == [sys.executable, '-I']
  monkeypatch.setenv('CXX', 'no-such-compiler')
  with pytest.raises(compiling.Unavailable, match='CXX=no-such-compiler must be a C'):
    compiling.compiler()
