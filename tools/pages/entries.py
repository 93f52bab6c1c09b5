"""What a page of results is made of: its text, and its rows."""

from typing import NamedTuple


class Entry(NamedTuple):
  """One row of a table: a config, what the command line changes of it, its seeds.

  A row that `deploys` another's posterior has no training and no config of its own: its overrides
  are those of `python -m sparsejax.deploy`. A row with a `trunk` goes on from the network of the
  same seed of that row. Both need the other row's run first.

  Attributes:
    label: its name, and its folder's.
    config: a config's file, with its argument.
    overrides: flags.
    seeds: each is a run.
    program: that trains it.
    deploys: the label of the row whose posterior is deployed.
    trunk: the label of the row whose network training goes on from.
    seconds: that a run is expected to take, to be looked at where time is short.
    tier: rows are trained in the order of their tiers' names, all seeds of one before the next.
  """

  label: str
  config: str = ''
  overrides: tuple[str, ...] = ()
  seeds: tuple[int, ...] = (0, 1, 2)
  program: str = 'launch.py'
  deploys: str = ''
  trunk: str = ''
  tier: str = ''
  seconds: float = 0.0

  @property
  def needs(self) -> str:
    """The label of the row that must be trained before this one; '' where there is none."""
    return self.trunk or self.deploys


class Page(NamedTuple):
  """What README.md says above its table, and the rows.

  Attributes:
    title: of the page.
    text: above its table.
    entries: its rows.
    lines: of each metrics.jsonl that is kept, about.
    traces: a regular expression over rows: the first seed's trace is kept.
    figure: the title of test error over compression, a line for each method; none without.
    curves: (title, regular expression over rows), drawn by epoch.
    runs: the folder of the runs, where it is another page's: what is in both is trained once.
  """

  title: str
  text: str
  entries: tuple[Entry, ...]
  lines: int = 120
  traces: str = ''
  figure: str = ''
  curves: tuple[tuple[str, str], ...] = ()
  runs: str = ''
