"""The whole report: its table, its text, its page. No single run can keep it from being made."""

import pathlib
from collections.abc import Sequence

from sparsejax.experiment.terminal.errors import in_one_line
from sparsejax.reports import page
from sparsejax.reports.figures import drawing, dress
from sparsejax.reports.records import collect, run_groups
from sparsejax.reports.text import searches, tables
from sparsejax.reports.text.drawn import Drawn


def write(runs: Sequence[collect.Run], out: pathlib.Path, look: dress.Look) -> str:
  """Writes the report of some runs; returns a line that sums it up.

  Args:
    runs: the runs to report.
    out: the folder, which must exist.
    look: the look of the figures.

  Raises:
    OSError: the folder cannot be written.
  """
  try:
    return _write(runs, out, look)
  except OSError:
    raise
  except Exception:  # whatever it is, the run that caused it is found and becomes a row
    return _write([_checked_for_page(run, out) for run in runs], out, look)


def _write(runs: Sequence[collect.Run], out: pathlib.Path, look: dress.Look) -> str:
  found = run_groups.group(runs)
  searched = searches.find_searches(runs)
  drawn = drawing.draw(found, searched, out, look)
  with (out / 'runs.csv').open('w', encoding='utf-8', newline='') as file:
    tables.write_csv(runs, out, file)
  (out / 'report.md').write_text(tables.markdown(found, runs, searched, drawn), encoding='utf-8')
  (out / 'report.html').write_text(page.page(found, runs, searched, drawn, out), encoding='utf-8')
  wrong = len({row[0] for row in tables.problems(runs, searched, drawn)})
  return (
    f'{len(runs)} runs, {len(found)} experiments, {wrong} with something wrong: {out}/report.html'
  )


def _checked_for_page(run: collect.Run, out: pathlib.Path) -> collect.Run:
  """Returns the run, or a blank one with the reason if it cannot be shown on a page."""
  try:
    page.page(run_groups.group([run]), [run], (), Drawn({}, ()), out)
    tables.markdown(run_groups.group([run]), [run], (), Drawn({}, ()))
    tables.row(run, out)
  except Exception as error:
    reason = f'it cannot be shown: {type(error).__name__}: {in_one_line(error)}'
    return collect.blank(run.path, run.name, reason)
  return run
