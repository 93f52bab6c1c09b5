"""The description of a page of results: its text and its rows."""

from typing import NamedTuple

from sparsejax.experiment.machine import files


class Entry(NamedTuple):
  """One row of a table: a config, the command line's changes to it, and its seeds.

  A row that `deploys` another's posterior has neither training nor a config of its own: its
  overrides are those of `python -m sparsejax.deploy`. A row that `ships` another's network likewise
  has those of `python -m sparsejax.ship`. A row with a `trunk` continues from that row's network of
  the same seed. All three need the other row's run first.

  Attributes:
    label: its name, and the name of its folder.
    config: a config file with its argument.
    overrides: the flags.
    seeds: the seeds; each is a run.
    program: the program that trains it.
    deploys: the label of the row whose posterior is deployed.
    ships: the label of the row whose network is shipped.
    trunk: the label of the row whose network training continues from.
    seconds: the expected time of a run, which counts when time is short.
    tier: rows are trained in the order of their tiers' names, all seeds of one before the next.
  """

  label: str
  config: str = ''
  overrides: tuple[str, ...] = ()
  seeds: tuple[int, ...] = (0, 1, 2)
  program: str = 'launch.py'
  deploys: str = ''
  ships: str = ''
  trunk: str = ''
  tier: str = ''
  seconds: float = 0.0

  @property
  def needs(self) -> str:
    """The label of the row that must be trained before this one, or ''."""
    return self.trunk or self.deploys or self.ships

  @property
  def result(self) -> str:
    """The file that exists once a run of this row has finished."""
    return files.SHIPPED if self.ships else files.SUMMARY


class Page(NamedTuple):
  """The text above the table of a README.md, and its rows.

  Attributes:
    title: the title of the page.
    text: the text above its table.
    entries: its rows.
    lines: roughly how many lines of each metrics.jsonl are kept.
    traces: a regular expression over rows; the first seed's trace of these is kept.
    figure: the title of a figure of test error over compression, with a line for each method; ''
      for no figure.
    curves: (title, regular expression over rows) of the curves drawn by epoch.
    runs: the folder of the runs if it is another page's; shared runs are trained once.
  """

  title: str
  text: str
  entries: tuple[Entry, ...]
  lines: int = 120
  traces: str = ''
  figure: str = ''
  curves: tuple[tuple[str, str], ...] = ()
  runs: str = ''
