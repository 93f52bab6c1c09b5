"""Every field of a config: its default is one that it may have, and what it can't be is refused.

In one line that names the field, by a flag, in a config's file and from Python alike.
"""

import inspect
import json
import math
import pathlib

import pytest

from sparsejax import launch
from sparsejax.experiment.chain import links, rates
from sparsejax.experiment.config import base, check, commandline, fields, overrides, setting_kinds
from sparsejax.experiment.terminal import say
from sparsejax.experiment.terminal.errors import UsageError

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = pathlib.Path(__file__).with_name('golden_defaults.json')
LAYERS = fields.LAYERS


def every_field():
  """(dotted name, field) of all of them."""
  for name, block in (fields.FIELDS | fields.BLOCKS).items():
    if isinstance(block, fields.Field):
      yield name, block
    else:
      yield from ((f'{name}.{key}', field) for key, field in block.items())


EVERY = dict(every_field())
NOT_TEXTS = (None, True, 3, 2.5, (), {})
WRONG = {  # by kind: what no field of it can be, whatever its bounds
  setting_kinds.Number: (
    'nope',
    '',
    math.nan,
    math.inf,
    -math.inf,
    True,
    None,
    (),
    (1.0,),
    {},
    10**400,
    1e308,
  ),
  setting_kinds.Integer: ('nope', '', 2.5, 1e308, math.nan, True, None, (), {}, -1, -(10**30)),
  setting_kinds.Flag: ('nope', '', 1, 0, 2.5, None, (), {}),
  setting_kinds.Text: (*NOT_TEXTS, 'two\nlines', '\x1b[31mred'),
  setting_kinds.Name: (*NOT_TEXTS, 'two\nlines', 'a/b', '..', 'x' * 300),
  setting_kinds.Choice: (*NOT_TEXTS, 'nope', '', 'two\nlines'),
  setting_kinds.Names: ('nope', '', None, True, 3, 2.5, {}, (1,), ('a', None), ('two\nlines',)),
  setting_kinds.Patterns: ('nope', '', None, True, 3, {}, ('(',), (1,)),
  setting_kinds.Pattern: (None, True, 3, 2.5, (), {}, '('),
  setting_kinds.Sides: ('nope', '', None, True, 3, (), (1,), (1, 2, 3), (0, 1), (1.5, 2), {}),
  setting_kinds.ByLayer: (
    *('nope', '', math.nan, math.inf, True, None, (), {}, {'conv': 0.5}, 10**400, -0.1, 1.1),
    *(
      'conv=',
      '=0.5',
      '(=0.5',
      'conv=1.5',
      'conv=0.5,,fc=0.5',
      'conv=0.5,',
      'conv=0.5,conv=0.1',
      'a=1.2.3',
    ),
  ),
  setting_kinds.Table: ('nope', '', None, True, 3, (), {'a': 'b'}, {'a': math.nan}, {1: 2.0}),
}


def wrong_values(kind):
  """What a field of this kind can't be, its own bounds overstepped as well."""
  if isinstance(kind, setting_kinds.Optional):
    return [value for value in wrong_values(kind.kind) if value is not None]
  if isinstance(kind, setting_kinds.Period):
    kind = setting_kinds.Number(kind.low, above=kind.above)
  bare = kind.kind if isinstance(kind, setting_kinds.Scheduled) else kind
  found = list(WRONG[type(bare)])
  if isinstance(bare, setting_kinds.Number):
    found += [bare.low - 1] if math.isfinite(bare.low) else []
    found += [bare.high + 1] if math.isfinite(bare.high) else []
    found += [bare.low] if bare.above else []
    found += [bare.high] if bare.below else []
  if isinstance(bare, setting_kinds.Integer):
    found += [bare.low - 1] + ([bare.high + 1] if bare.high is not None else [])
  if isinstance(kind, setting_kinds.Scheduled):
    block = {'schedule': 'step_decay', 'value': 0.1, 'factor': 0.1, 'every_epochs': 1.0}
    found += [block | {'value': math.nan}, block | {'schedule': 'nope'}, block | {'fctor': 1.0}]
    found += [block | {'every_epochs': 0.0}, block | {'factor': math.inf}]
  return found


def of_config_dict(kind):
  """The same, less what a ConfigDict itself turns into a number, or can't."""
  bare = kind.kind if isinstance(kind, setting_kinds.Scheduled | setting_kinds.Optional) else kind
  is_number = isinstance(bare, setting_kinds.Number)
  return [v for v in wrong_values(kind) if not (is_number and (v is True or v == 10**400))]


def config_with(name):
  """A config that has the field."""
  block = name.partition('.')[0]
  if block in fields.LINKS:
    return base.get_config(tuple(dict.fromkeys((*base.SGD, block))))
  events = (block,) if block in fields.EVENTS else ()
  return base.get_config(events=events, layers=block if block in LAYERS else 'deterministic')


def with_value(name, value):
  """The same, the field set whatever the value."""
  config = config_with(name)
  block, _, key = name.rpartition('.')
  with config.unlocked(), config.ignore_type():
    (config[block] if block else config)[key] = value
  return config


def assert_refused(name, value, make):
  with pytest.raises(UsageError) as error:
    make()
  message = str(error.value)
  assert '\n' not in message, message
  assert message.isprintable(), message
  first = name.partition('.')[0]
  assert name in message or (first in ('chain', 'events', 'layers') and first in message), message
  return message


@pytest.mark.parametrize('name', EVERY)
def test_a_default_is_one_of_its_kind(name):
  field = EVERY[name]
  assert field.kind.convert(field.default) == field.default
  assert type(field.kind.convert(field.default)) is type(field.default)
  assert field.meaning
  assert field.kind.requirement


@pytest.mark.parametrize('name', EVERY)
def test_what_a_field_can_not_be_is_refused_from_python(name):
  for value in of_config_dict(EVERY[name].kind):
    message = assert_refused(name, value, lambda v=value: commandline.checked(with_value(name, v)))
    assert 'must be' in message or 'unknown' in message, message


def as_text(value):
  return value if isinstance(value, str) else repr(value)


@pytest.mark.parametrize('name', EVERY)
def test_what_a_field_can_not_be_is_refused_by_a_flag(name, tmp_path):
  file = tmp_path / 'mine.py'
  block = name.partition('.')[0]
  chain = tuple(dict.fromkeys((*base.SGD, *([block] if block in fields.LINKS else []))))
  events = (block,) if block in fields.EVENTS else ()
  layers = block if block in LAYERS else 'deterministic'
  file.write_text(
    'from sparsejax.experiment.config import base\n\n\ndef get_config():\n'
    f'  return base.get_config({chain!r}, {events!r}, {layers!r})\n'
  )
  kind = EVERY[name].kind
  bare = kind.kind if isinstance(kind, setting_kinds.Optional) else kind
  for value in wrong_values(kind):
    if isinstance(bare, setting_kinds.Text | setting_kinds.Pattern) and not isinstance(value, str):
      continue  # on a command line everything is a text
    arguments = overrides.parse_config_flags(
      [f'--config={file}', f'--config.{name}={as_text(value)}']
    )
    assert_refused(name, value, lambda a=arguments: commandline.resolve_arguments(a))


@pytest.mark.parametrize('name', EVERY)
def test_what_a_field_can_not_be_is_refused_in_a_file(name, tmp_path):
  block, _, key = name.rpartition('.')
  target = f'config.{block}' if block else 'config'
  for number, value in enumerate(of_config_dict(EVERY[name].kind)):
    file = tmp_path / f'mine{number}.py'
    first = name.partition('.')[0]
    chain = tuple(dict.fromkeys((*base.SGD, *([first] if first in fields.LINKS else []))))
    events = (first,) if first in fields.EVENTS else ()
    layers = first if first in LAYERS else 'deterministic'
    text = repr(value).replace('nan', "float('nan')").replace('inf', "float('inf')")
    file.write_text(
      'from sparsejax.experiment.config import base\n\n\ndef get_config():\n'
      f'  config = base.get_config({chain!r}, {events!r}, {layers!r})\n'
      '  with config.unlocked(), config.ignore_type():\n'
      f"    {target}['{key}'] = {text}\n"
      '  return config\n'
    )
    arguments = overrides.ConfigArguments(str(file), {}, ())
    assert_refused(name, value, lambda a=arguments: commandline.resolve_arguments(a))


@pytest.mark.parametrize(
  ('flag', 'now'),
  [
    ('prune.target=0.1', 'config.prune.density'),
    ('prune.unit=macs', 'config.prune.density_of'),
    ('prune.round_share=0.1', 'config.prune.round_fraction'),
    ('prune.exchange_share=0.1', 'config.prune.drop_fraction'),
    ('prune.schedule=rounds', 'iterative'),
    ('prune.granularity=n_of_m', 'n_m'),
  ],
)
def test_what_was_renamed_is_told_by_its_present_name(flag, now):
  """However unlike the former name is; by a flag and from Python alike."""
  now = now.removeprefix('config.')
  with pytest.raises(UsageError, match=rf" it is called '{now}' now$"):
    commandline.resolve(['--config=configs/quickstart.py', f'--config.{flag}'])
  name, _, value = flag.partition('=')
  with pytest.raises(UsageError, match=rf" it is called '{now}' now$"):
    commandline.checked(with_value(name, value))


def test_a_former_name_is_none_of_todays():
  names = {name.rpartition('.')[2] for name in EVERY}
  assert not names & set(setting_kinds.FORMER)
  assert set(setting_kinds.FORMER.values()) <= names | {'n_m', 'iterative'}


DENSITY = '--config.prune.density=conv[1,2]=.5, .*=1e-1'


def test_densities_by_layer_are_one_text_by_flag_in_a_file_and_from_python(tmp_path):
  """In the order in which they are given, and the same however they are written."""
  quick, by_layer = '--config=configs/quickstart.py', '--config.prune.allocation=by_layer'
  found = [commandline.resolve([quick, by_layer, DENSITY])]
  config = base.get_config((*base.SGD, 'prune'))
  config.prune.update(allocation='by_layer', density='conv[1,2]=0.5,.*=0.1')
  found.append(commandline.checked(config))
  file = tmp_path / 'mine.py'
  file.write_text(
    'from sparsejax.experiment.config import base\n\n\ndef get_config():\n'
    "  config = base.get_config((*base.SGD, 'prune'))\n"
    "  config.prune.allocation = 'by_layer'\n"
    "  config.prune.density = 'conv[1,2]=0.50,.*=0.1'\n"
    '  return config\n'
  )
  found.append(commandline.resolve([f'--config={file}']))
  assert [one['prune']['density'] for one in found] == ['conv[1,2]=0.5,.*=0.1'] * 3


def test_a_default_that_changes_raises_the_version():
  """What a run's directory is named after: the differences from the defaults, and their version."""
  golden = json.loads(GOLDEN.read_text())
  now = {name: json.loads(json.dumps(field.default)) for name, field in EVERY.items()}
  if golden['version'] != base.VERSION:
    pytest.fail(f'write the defaults of version {base.VERSION} to {GOLDEN.name}')
  changed = {name for name, value in golden['defaults'].items() if now.get(name) != value}
  assert not changed, f'raise VERSION in base.py: of {sorted(changed)} the default is another'
  new = set(now) - set(golden['defaults'])
  assert not new, f'add {sorted(new)} to {GOLDEN.name}: a run without it is one with its default'


def test_a_schedule_stands_wherever_a_number_may_and_a_number_where_a_schedule_stood(tmp_path):
  quick = '--config=configs/quickstart.py'
  field = 'scale_by_learning_rate.learning_rate'
  block = "{'schedule': 'cosine', 'value': 0.2, 'warmup_epochs': 1}"
  settings = commandline.resolve([quick, f'--config.{field}={block}'])
  rate = settings['scale_by_learning_rate']['learning_rate']
  assert rate == {'schedule': 'cosine', 'value': 0.2, 'warmup_epochs': 1.0}
  settings = commandline.resolve([quick, f'--config.{field}=1'])
  assert settings['scale_by_learning_rate']['learning_rate'] == 1.0
  settings = commandline.resolve([quick, f'--config.add_decayed_weights.weight_decay={block}'])
  assert settings['add_decayed_weights']['weight_decay']['schedule'] == 'cosine'


def test_a_schedules_settings_are_the_arguments_of_what_makes_it():
  assert set(fields.SCHEDULES) == set(rates.KINDS)
  for name, settings in fields.SCHEDULES.items():
    arguments = set(inspect.signature(rates.KINDS[name]).parameters) - {'total'}
    assert set(settings) == arguments, name


def test_a_duration_may_be_given_in_another_unit():
  quick = '--config=configs/quickstart.py'
  prune = commandline.resolve([quick, '--config.prune.begin_steps=7'])['prune']
  assert prune['begin_steps'] == 7
  assert 'begin_epochs' not in prune
  every = '--config.scale_by_learning_rate.learning_rate.every_steps=9'
  rate = commandline.resolve([quick, every])['scale_by_learning_rate']['learning_rate']
  assert rate['every_steps'] == 9
  assert 'every_epochs' not in rate


def test_what_nothing_reads_is_refused_wherever_it_was_set():
  config = base.get_config((*base.SGD, 'prune'))
  config.prune.every_steps = 7
  with pytest.raises(UsageError, match=r'prune\.every_steps=7 is never read'):
    commandline.checked(config)
  config.prune.schedule = 'cubic'
  assert commandline.checked(config)['prune']['every_steps'] == 7


def test_a_value_may_come_after_its_flag_and_must_come():
  arguments = overrides.parse_config_flags(['--config', 'a.py', '--config.seed', '3', '--out=x'])
  assert arguments == overrides.parse_config_flags(['--config=a.py', '--config.seed=3', '--out=x'])
  for argv in (['--config.seed'], ['--config.seed', '--out=x']):
    with pytest.raises(UsageError, match='seed needs a value'):
      overrides.parse_config_flags(argv)


def test_errors_of_a_file_name_its_line(tmp_path):
  file = tmp_path / 'mine.py'
  for text, expected in (
    ('def get_config():\n  return 1 / 0\n', f'{file}:2: ZeroDivisionError: division by zero'),
    ('def get_config(:\n', f'{file}:1: SyntaxError'),
    ('import nowhere_to_be_found\n', f'{file}:1: ModuleNotFoundError'),
    ('def get_config():\n  raise ValueError("of mine")\n', f'{file}:2: of mine'),
    ('x = 1\n', 'is not a config: it must have a function get_config()'),
    ('def get_config():\n  return {}\n', 'must return a ConfigDict'),
  ):
    file.write_text(text)
    with pytest.raises(UsageError) as error:
      commandline.resolve([f'--config={file}'])
    assert expected in str(error.value)
    assert '\n' not in str(error.value)


def test_every_duration_of_the_training_is_shortened():
  quick = '--config=configs/quickstart.py'
  whole, tenth = (launch.read([quick, *more]).settings for more in ([], ['--shorten=0.1']))
  assert tenth['epochs'] == pytest.approx(0.1 * whole['epochs'])
  assert tenth['prune']['begin_epochs'] == pytest.approx(2.0)
  assert tenth['scale_by_learning_rate']['learning_rate']['every_epochs'] == pytest.approx(2.0)
  assert tenth['log'] == whole['log']
  assert tenth['batch_size'] == whole['batch_size']
  for wrong in ('0', '-1', 'nan', 'inf', 'some'):
    with pytest.raises(UsageError, match='shorten'):
      launch.read([quick, f'--shorten={wrong}'])


def test_the_settings_are_printed_and_nothing_is_trained(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(ROOT)
  workdir = tmp_path / 'run'
  arguments = ['launch.py', '--config=configs/quickstart.py', f'--workdir={workdir}']
  assert launch.main([*arguments, '--print_config', '--config.seed=7']) == 0
  assert '* seed' in capsys.readouterr().out
  assert not workdir.exists()


# What a default of the library's transformations is called in a config.
PARTS = {
  'allocation': 'global_rank',
  'granularity': {'proximal_group_l1': 'filters'},
  'update_rule': 'nested',
  'inner': (),
}


def of_library(link, name, default):
  if default is None:
    named = PARTS[name]
    return named.get(link, 'weight') if isinstance(named, dict) else named
  return default.__name__ if callable(default) else default


@pytest.mark.parametrize('link', fields.LINKS)
def test_where_a_default_is_not_the_librarys_its_meaning_says_so(link):
  maker = links.known()[link]
  owner = "the library's" if link in links.OURS else "Optax's"
  for name, parameter in inspect.signature(maker).parameters.items():
    field = fields.LINKS[link].get(name)
    if field is None or parameter.default is parameter.empty or name == 'learning_rate':
      continue
    is_same = of_library(link, name, parameter.default) == field.default
    assert is_same == (owner not in field.meaning), name


def test_help_names_every_field():
  text = commandline.help_text()
  assert all(f'--config.{name}=' in text for name in EVERY)


def test_settings_of_optaxs_own_links_are_finite_too():
  config = base.get_config(('adam',))
  with config.unlocked():
    config.adam = {'learning_rate': math.nan}
  with pytest.raises(UsageError, match=r'adam\.learning_rate=nan must be a finite number'):
    commandline.checked(config)


def test_a_value_is_shown_in_one_line_and_not_at_length():
  assert say.shown('x' * 500).endswith('...')
  assert '\n' not in say.shown('a\nb')
  assert '\x1b' not in say.shown('\x1b[31m')


@pytest.mark.parametrize(('text', 'flag'), [('true', True), ('False', False), ('false', False)])
def test_a_flag_is_read_as_it_is_written(text, flag):
  assert setting_kinds.Flag().parse(text) is flag


@pytest.mark.parametrize('number', [2**53 + 1, -(2**53) - 1])
def test_an_integer_that_no_float_holds_is_refused_where_optax_knows_the_setting(number):
  config = base.get_config(('scale_by_lion', 'scale_by_learning_rate')).to_dict()
  config['scale_by_lion'] = {'b1': number}
  with pytest.raises(ValueError, match=rf'^scale_by_lion\.b1={number} must be'):
    check.check(config)


@pytest.mark.parametrize('wrong', [None, 1.5, 'adam', {}, {'inner': 3}, {'inner': None}])
def test_a_wrong_block_is_told_and_not_what_it_would_have_brought(wrong):
  config = base.get_config(('prune',))
  config.prune.inner = ('trace', 'scale_by_learning_rate')
  settings = base.complete(config).to_dict()
  if isinstance(wrong, dict) and wrong:
    wrong = settings['prune'] | wrong
  with pytest.raises(ValueError, match=r'^prune'):
    check.check(settings | {'prune': wrong})
