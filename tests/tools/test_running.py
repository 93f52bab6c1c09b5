"""The runs of pages: their order, what waits for what, and that they stop when they are told to."""

import signal
import subprocess
import sys
import threading

import pytest

from tools import reproduce, running
from tools.pages import pages
from tools.pages.entries import Entry, Page

ROWS = (
  Entry('late', seeds=(0, 1), tier='B'),
  Entry('cut', seeds=(0, 1), tier='A', trunk='trunk'),
  Entry('trunk', seeds=(0,), tier='C'),
  Entry('big', seeds=(0,), tier='GPU'),
  Entry('again', seeds=(1,), tier='A', deploys='cut'),
)


@pytest.fixture
def _page(monkeypatch):
  monkeypatch.setitem(pages.PAGES, 'made_up', Page('Made up', '', ROWS))
  shared = Page('The same runs', '', ROWS[:1], runs='made_up')
  monkeypatch.setitem(pages.PAGES, 'shared', shared)


def planned(*chosen, gpu=False):
  tasks = running.plan([*chosen], gpu=gpu)
  return [(task.entry.label, task.seed) for task in tasks]


@pytest.mark.usefixtures('_page')
def test_the_order_is_by_tier_then_seed_and_what_a_row_needs_comes_before_it():
  assert planned(('made_up', '')) == [
    *(('trunk', 0), ('cut', 0)),  # of tier C by itself, but needed in tier A
    *(('trunk', 1), ('cut', 1), ('again', 1)),
    *(('late', 0), ('late', 1)),
  ]


@pytest.mark.usefixtures('_page')
def test_a_gpu_gets_its_own_rows_first_and_others_never_do():
  assert planned(('made_up', 'big|late'), gpu=True) == [('big', 0), ('late', 0), ('late', 1)]
  assert planned(('made_up', 'big|late')) == [('late', 0), ('late', 1)]


@pytest.mark.usefixtures('_page')
def test_what_is_chosen_brings_what_it_needs():
  assert planned(('made_up', '^again$')) == [('trunk', 1), ('cut', 1), ('again', 1)]


@pytest.mark.usefixtures('_page')
def test_what_is_on_two_pages_is_run_once():
  assert planned(('made_up', 'late'), ('shared', '')) == [('late', 0), ('late', 1)]


def test_every_row_needs_one_that_is_on_its_page():
  for page in pages.PAGES.values():
    labels = {entry.label for entry in page.entries}
    assert {entry.needs for entry in page.entries if entry.needs} <= labels


def test_the_network_to_go_on_from_is_that_of_the_same_seed(tmp_path):
  command = running.command_of(ROWS[1]._replace(config='c.py'), 2, tmp_path, None)
  assert f'--config.init_from={tmp_path / "trunk" / "seed2"}' in command
  assert '--config.seed=2' in command


@pytest.mark.usefixtures('_page')
def test_a_run_waits_for_the_one_that_it_needs():
  schedule = running.Schedule(running.plan([('made_up', 'trunk|cut|late')], gpu=False))
  trunk = schedule.take()
  assert trunk.place == ('made_up', 'trunk', 0)
  other = schedule.take()  # cut waits for trunk, so the next one that does not
  assert other.place == ('made_up', 'trunk', 1)
  schedule.ended(trunk, well=True)
  assert schedule.take().place == ('made_up', 'cut', 0)
  later = schedule.take()
  assert later.place == ('made_up', 'late', 0)


@pytest.mark.usefixtures('_page')
def test_what_needs_a_run_that_failed_is_not_begun(capsys):
  schedule = running.Schedule(running.plan([('made_up', 'again')], gpu=False))
  schedule.ended(schedule.take(), well=False)
  assert schedule.take() is None
  assert not schedule.all_well
  assert not schedule.pending
  assert capsys.readouterr().out.splitlines() == [
    '  cut, seed 1: trunk failed',
    '  again, seed 1: cut failed',
  ]


@pytest.mark.usefixtures('_page')
def test_a_thread_that_waits_is_woken():
  schedule = running.Schedule(running.plan([('made_up', 'cut')], gpu=False)[:2])
  trunk, taken = schedule.take(), []
  waiting = threading.Thread(target=lambda: taken.append(schedule.take()))
  waiting.start()
  schedule.ended(trunk, well=True)
  waiting.join(timeout=60)
  assert [task.place for task in taken] == [('made_up', 'cut', 0)]


PROGRAM = """
import pathlib, sys, time
at = next(a.partition('=')[2] for a in sys.argv if a.startswith('--workdir='))
time.sleep({sleep})
pathlib.Path(at).mkdir(parents=True)
pathlib.Path(at, 'summary.json').write_text('{{}}')
"""


def rows_of_seconds(tmp_path, *rows):
  """Tasks whose program sleeps, each with a label, its time and its expected time."""
  tasks = []
  for label, sleep, expected in rows:
    program = tmp_path / f'{label}.py'
    program.write_text(PROGRAM.format(sleep=sleep))
    entry = Entry(label, 'c.py', seeds=(0,), program=str(program), seconds=expected)
    tasks.append(running.Task('page', entry, 0))
  return tasks


def finished(runs):
  return sorted(path.parent.parent.name for path in runs.glob('page/*/seed0/summary.json'))


def test_a_row_that_can_not_end_in_time_is_not_begun(tmp_path, capsys):
  tasks = rows_of_seconds(tmp_path, ('big_a', 0, 1e6), ('small_a', 0, 1), ('small_b', 0, 1))
  with running.Children() as children:
    assert running.train(tasks, tmp_path / 'runs', None, 1, children, seconds=500)
  assert finished(tmp_path / 'runs') == ['small_a', 'small_b']
  assert 'no time for: big_a/seed0' in capsys.readouterr().out


def test_what_a_model_took_is_what_is_expected_of_its_next_row(tmp_path):
  first, second = rows_of_seconds(tmp_path, ('net_a', 0, 1), ('net_b', 0, 1))
  budget = running.Budget(100)
  assert budget.fits(second)
  budget.note(first, 1000.0)
  assert not budget.fits(second)
  assert running.Budget(None).fits(second)


def test_when_the_time_is_over_what_runs_is_stopped_and_what_is_done_is_kept(tmp_path):
  tasks = rows_of_seconds(tmp_path, ('one_a', 0, 0), ('two_a', 1000, 0), ('three_a', 0, 0))
  with running.Children() as children:
    assert not running.train(tasks, tmp_path / 'runs', None, 1, children, seconds=3)
  assert 'two_a' not in finished(tmp_path / 'runs')
  assert 'three_a' not in finished(tmp_path / 'runs')


WAITS = """
import pathlib, signal, sys, time
def save(number, frame):
  pathlib.Path(sys.argv[1]).write_text(f'saved after {number}')
  sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
print('ready', flush=True)
time.sleep(300)
"""
PARENT = """
import pathlib, sys
sys.path.insert(0, '.')
from tools import running
with running.Children() as children:
  print(children.run([sys.executable, '-c', {waits!r}, {saved!r}], set(), pathlib.Path({log!r})))
  print(children.run([sys.executable, '-c', 'print(1)'], set(), pathlib.Path({log!r})))
"""


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_goes_on_to_what_runs_and_nothing_more_is_begun(number, tmp_path):
  saved, log = tmp_path / 'saved', tmp_path / 'log'
  program = PARENT.format(waits=WAITS, saved=str(saved), log=str(log))
  parent = subprocess.Popen(
    [sys.executable, '-c', program], cwd=running.ROOT, stdout=subprocess.PIPE, text=True
  )
  while not (log.exists() and log.read_text().endswith('\n')):  # unbuffered, a line comes in two
    assert parent.poll() is None
  parent.send_signal(number)
  said, _ = parent.communicate(timeout=120)
  assert parent.returncode == 128 + number
  assert saved.read_text() == f'saved after {signal.SIGTERM}'
  assert said.split() == ['143', 'None']
  assert log.read_text() == 'ready\n'


REFUSED = {
  'no runs': (['mnist_lobs', '--runs='], '--runs= must name a folder'),
  'no job': (['mnist_lobs', '--runs=r', '--jobs=0'], '--jobs=0 must be 1 or more'),
  'no time': (['mnist_lobs', '--runs=r', '--seconds=0'], '--seconds must be more than 0'),
  'no row': (['mnist_lobs', '--runs=r', '--only=lenet6'], "--only='lenet6' must match a row"),
  'no expression': (['mnist_lobs', '--runs=r', '--only=('], "--only='(': it must be a regular"),
  'deep expression': (['mnist_lobs', '--runs=r', f'--only={"(" * 9999}'], 'must be a regular'),
  'no number': (['mnist_lobs', '--runs=r', '--jobs=x'], "--jobs: invalid int value: 'x'"),
  'no page': (['mnist_lob', '--runs=r'], "invalid choice: 'mnist_lob'"),
}


@pytest.mark.parametrize(('arguments', 'expected'), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_end_the_command_with_status_2(arguments, expected, capsys):
  with pytest.raises(SystemExit) as stop:
    reproduce.parse(arguments)
  assert stop.value.code == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert expected in line
