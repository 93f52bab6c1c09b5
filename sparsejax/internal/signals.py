"""The signals that ask a command to end: from its first import on in one line, never a traceback.

Before and after training nothing is left to save, so the process ends at once, with status 128 and
the signal's number. While it trains, or others do for it, `handled` lets it save first.
"""

import contextlib
import os
import pathlib
import signal
from collections.abc import Callable, Generator, Sequence
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler = Callable[[int, FrameType | None], None]


def heeded() -> list[signal.Signals]:
  """Returns the signals that end a command: not SIGHUP where it is ignored, as under nohup."""
  is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  return [number for number in ENDING if number != signal.SIGHUP or not is_ignored]


@contextlib.contextmanager
def handled(handler: Handler | signal.Handlers) -> Generator[None]:
  """Has every heeded signal call the handler while the block runs.

  Only the main thread can set signals; in others they stay as they are.
  """
  previous = {}
  try:
    for number in heeded():
      previous[number] = signal.signal(number, handler)
  except ValueError:
    yield
    return
  try:
    yield
  finally:
    for number, before in previous.items():
      signal.signal(number, before)


@contextlib.contextmanager
def noted(note: Callable[[int], None]) -> Generator[None]:
  """Calls `note` on the first signal of each number while the block runs; a second acts as ever.

  A second SIGHUP is ignored: of a terminal that closes one comes from the kernel, one from the
  shell.
  """
  before = {number: signal.getsignal(number) for number in ENDING}

  def handle(number, frame):
    del frame
    signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else before[number])
    note(number)

  with handled(handle):
    yield


def command_of(script: str | None, argv: Sequence[str]) -> str:
  """Returns which command of this package a process was started for; '' where it is none.

  Args:
    script: the file that the interpreter was given; None with -m.
    argv: of the interpreter, as `sys.orig_argv` has it.

  Example:
    >>> command_of(None, ['python', '-m', 'sparsejax.sweep', '--workdir=x'])
    'sweep'
    >>> command_of('train.py', ['python', 'train.py', '-m', 'sparsejax.sweep'])
    ''
  """
  if script is not None:
    path, root = pathlib.Path(script).resolve(), pathlib.Path(__file__).resolve().parents[2]
    return path.name if path in (root / 'launch.py', root / 'tools' / 'reproduce.py') else ''
  module = argv[argv.index('-m') + 1] if '-m' in argv[:-1] else ''
  package, _, name = module.partition('.')
  return {'launch': 'launch.py'}.get(name, name) if package == 'sparsejax' else ''


def end_in_one_line(command: str) -> None:
  """Has a signal end this process at once, with a line that says so.

  No exception could do it everywhere: imports, callbacks and destructors swallow some.

  Args:
    command: that the line begins with; nothing is done where it is ''.
  """

  def end(number, frame):
    del frame
    name = signal.Signals(number).name
    with contextlib.suppress(OSError):  # a terminal that closed
      os.write(2, f'{command}: {name}; what was saved before stays\n'.encode())
    os._exit(128 + number)

  if command:
    for number in heeded():
      signal.signal(number, end)
