"""The command that writes a report: its table, pictures and pages, and what it refuses."""

import html.parser
import json
import pathlib
import re
import urllib.parse

import pytest
from PIL import Image
from run_folders import every_kind, read_csv, write_run

from sparsejax import report
from sparsejax.reports import page
from sparsejax.reports.records import collect, run_groups
from sparsejax.reports.text import drawn, tables


def test_every_setting_and_every_figure_is_in_the_table(tmp_path):
  folder = every_kind(tmp_path / 'runs')
  report.report([folder], tmp_path / 'out')
  row = read_csv(tmp_path / 'out')['seed1']
  assert row['config.prune.density'] == '0.05'
  assert row['config.seed'] == '1'
  assert row['summary.layers.fc1.active_units'] == '5'
  assert row['summary.test_accuracy'] == '0.98'
  assert row['last.validation_loss'] == '0.25'
  assert row['machine.processor'] == 'a chip'
  assert json.loads(row['machine.devices']) == ['cpu']
  assert (tmp_path / 'out' / row['path'] / 'summary.json').exists()


def test_paths_of_the_table_are_relative_to_its_folder():
  path = tables.relative(pathlib.Path('/a/runs/x'), pathlib.Path('/a/reports'))
  assert path == '../runs/x'


PICTURES = ('pareto', 'traces', 'weights', 'units')


def test_pictures_are_drawn_as_png_and_svg_and_are_in_the_pages(tmp_path):
  folder = every_kind(tmp_path / 'runs')
  out = tmp_path / 'out'
  report.report([folder], out)
  text = (out / 'report.md').read_text()
  for name in PICTURES:
    stem = f'lenet300_on_mnist.{name}'
    with Image.open(out / f'{stem}.png') as image:
      assert min(image.size) > 400
      assert len(image.convert('RGB').getcolors(1 << 24)) > 10
    assert '</svg>' in (out / f'{stem}.svg').read_text()
    assert f'({stem}.png)' in text
  assert (out / 'report.html').read_text().count('<button class="picture') == len(PICTURES)


def test_a_picture_wider_than_the_text_has_the_width_of_the_window(tmp_path):
  looks = []
  for width in (page.WIDE, page.WIDE + 1):
    Image.new('RGB', (width, 10)).save(tmp_path / 'a.png')
    picture = drawn.Picture('a', ['a.png'], (tmp_path / 'a.png').read_bytes())
    looks += re.findall('class="(.*?)"', page._image(picture))
  assert looks == ['picture', 'picture wide']


def test_the_same_runs_make_the_same_report(tmp_path):
  folder = every_kind(tmp_path / 'runs')
  for name in ('a', 'b'):
    report.report([folder], tmp_path / name)
  for file in (tmp_path / 'a').iterdir():
    if file.suffix in ('.svg', '.csv', '.md'):
      assert file.read_bytes() == (tmp_path / 'b' / file.name).read_bytes()


class Links(html.parser.HTMLParser):
  """What a page links to, what it calls its parts, and what it loads."""

  def __init__(self, text):
    super().__init__()
    self.targets, self.anchors, self.loaded = [], [], []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self.anchors += [attributes['id']] if 'id' in attributes else []
    self.targets += [attributes['href']] if tag == 'a' else []
    self.loaded += [attributes[key] for key in ('src',) if key in attributes]


def test_the_page_needs_nothing_and_its_links_lead_to_runs(tmp_path):
  folder = every_kind(tmp_path / 'runs')
  out = tmp_path / 'elsewhere' / 'out'
  report.report([folder], out)
  text = (out / 'report.html').read_text()
  links = Links(text)
  assert all(source.startswith('data:') for source in links.loaded)
  for target in links.targets:
    if target.startswith('#'):
      assert target[1:] in links.anchors
    else:
      assert (out / urllib.parse.unquote(target)).exists(), target
  runs = collect.collect([folder])
  assert sum(anchor.startswith('run-') for anchor in links.anchors) == len(runs)
  points = re.findall(r'"customdata":\[([^]]*)\]', text)
  anchors = {anchor.strip('"') for found in points for anchor in found.split(',') if anchor}
  counted = [
    run for group in run_groups.group(runs) for run in group.counted if group.kind != 'dense'
  ]
  assert anchors == {f'run-{runs.index(run)}' for run in counted}


def test_names_with_special_characters_are_text_and_not_markup(tmp_path):
  write_run(tmp_path / 'a<b>&"c', method='<script>alert(1)</script>|')
  report.report([tmp_path], tmp_path / 'out')
  text = (tmp_path / 'out' / 'report.html').read_text()
  assert '<script>alert(1)' not in text
  assert '\\u003cscript' in text or '&lt;script&gt;alert(1)' in text
  table = (tmp_path / 'out' / 'report.md').read_text()
  assert {line.count('|') for line in table.splitlines() if line.startswith('| <script')} == {11}


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'DIR is missing: give run directories or folders above them'),
    (('RUNS',), '--out is missing: it must be --out=FOLDER'),
    (('', '--out=OUT'), "'': there is no such folder"),
    (('RUNS', '--out=gs://bucket'), "--out='gs://bucket' must be a folder of this machine"),
    (('NOWHERE', '--out=OUT'), 'there is no such folder; give folders with runs'),
    (('EMPTY', '--out=OUT'), 'no run; give run directories or folders above them'),
    (('RUNS', '--out=FILE'), 'it must be a writable folder'),
    (('RUNS', '--output=OUT'), 'unrecognized arguments: --output='),
  ],
)
def test_what_can_not_be_reported_is_one_line_and_status_2(tmp_path, capsys, arguments, message):
  write_run(tmp_path / 'runs' / 'a')
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'file').write_text('')
  places = {'RUNS': 'runs', 'NOWHERE': 'nowhere', 'EMPTY': 'empty', 'FILE': 'file', 'OUT': 'out'}
  argv = ['report']
  for argument in arguments:
    for name, place in places.items():
      argument = argument.replace(name, str(tmp_path / place))
    argv.append(argument)
  assert report.main(argv) == 2
  error = capsys.readouterr().err
  assert error.startswith('report: ')
  assert message in error
  assert error.count('\n') == 1
  assert not (tmp_path / 'out').exists()
