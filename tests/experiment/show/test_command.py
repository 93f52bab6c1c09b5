"""One rule of exit statuses: what ends a command, by its error, and the line that says so."""

import errno
import signal

import pytest

from sparsejax import benchmark, deploy, launch, report, ship, sweep
from sparsejax.experiment import command
from sparsejax.experiment.terminal import errors


class OwnError(Exception):
  """A command's own failure."""


def ended(error=None, **options):
  """The exit status of a command that ends with an error."""

  def act(asked):
    if error is not None:
      raise error
    return asked.count('status')

  given = dict(text=lambda: 'the help', read=list, act=act, folder=lambda asked: asked[0])
  return command.run('name', ['name', 'FOLDER'], **(given | options))


FULL, EIO = OSError(errno.ENOSPC, 'full'), OSError(errno.EIO, 'no answer')
ENDS = {
  'a refusal': (errors.UsageError('a=1 must be 2'), 2, 'a=1 must be 2'),
  'a signal': (errors.TerminatedError('saved', signal.SIGTERM), 143, 'saved'),
  'a loss': (errors.NonFiniteLossError('the loss\nis nan'), 1, 'the loss is nan'),
  'the disk': (errors.UnreadableError('no answer'), 1, 'no answer'),
  'a full disk': (FULL, 2, 'full: FOLDER; what was saved before is kept'),
  'a broken disk': (
    *(OSError(errno.EIO, 'no answer', 'x'), 1),
    'no answer: x; what was saved before is kept',
  ),
  'a path': (FileNotFoundError(2, 'none', 'x'), 2, 'none: x; what was saved before is kept'),
}


@pytest.mark.parametrize(('error', 'status', 'line'), ENDS.values(), ids=ENDS)
def test_the_status_is_that_of_the_error(error, status, line, capsys):
  assert ended(error) == status
  assert capsys.readouterr().err == f'name: {line}\n'


def test_what_ends_well_is_0_unless_the_command_says_otherwise():
  assert ended() == 0
  assert ended(act=lambda asked: None) == 0
  assert ended(act=lambda asked: 3) == 3


def test_a_mistake_of_the_program_is_no_line():
  for error in (ValueError('x'), OSError('no socket'), OwnError('x'), EIO):
    with pytest.raises(type(error)):
      ended(error)


def test_a_command_may_have_refusals_failures_and_words_of_its_own(capsys):
  assert ended(ValueError('no'), refusal=ValueError) == 2
  assert ended(OwnError('no'), failures=(OwnError,)) == 1
  assert ended(EIO, failures=(OSError,)) == 1
  assert ended(FULL, failures=(OSError,), left='all is lost') == 2
  assert capsys.readouterr().err.splitlines() == [
    'name: no',
    'name: no',
    'name: [Errno 5] no answer',
    'name: full: FOLDER; all is lost',
  ]


def test_a_disk_that_is_full_before_the_options_are_read_is_no_line():
  with pytest.raises(OSError, match='full'):
    ended(read=lambda argv: (_ for _ in ()).throw(FULL))


def test_help_reads_nothing(capsys):
  def no(argv):
    raise AssertionError

  for flag in ('--help', '-h'):
    given = dict(text=lambda: 'the\nhelp', read=no, act=no, folder=no)
    assert command.run('name', ['name', 'x', flag], **given) == 0
    assert capsys.readouterr().out == 'the\nhelp\n'


@pytest.mark.parametrize('module', [launch, sweep, report, deploy, ship, benchmark])
def test_every_command_has_the_frame(module, capsys):
  assert module.main(['name', '--help']) == 0
  out = capsys.readouterr().out
  assert out.startswith(module.__doc__)
  assert 'Exit status: 0 finished, 2 if this cannot be ' in out
  assert module.main(['name', '--no-such-flag=1']) == 2
  assert capsys.readouterr().err.count('\n') == 1


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_block_by_way_of_its_end(number, capsys):
  before, seen = signal.getsignal(number), []

  def block():
    with command.leaving_on_signals('name', '; nothing is kept'):
      try:
        signal.raise_signal(number)
      finally:
        seen.append('the end')

  with pytest.raises(SystemExit) as left:
    block()
  assert left.value.code == 128 + number
  assert seen == ['the end']
  assert capsys.readouterr().err == f'name: {signal.Signals(number).name}; nothing is kept\n'
  assert signal.getsignal(number) == before
