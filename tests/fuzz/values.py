"""Values that a person, a script, or somebody who means harm may give to any setting at all."""

import random

# Written down without a look at what any setting may be.
HOSTILE = (
  *('', ' ', 'nan', 'NaN', 'inf', '-inf', '1e308', '-1e308', '1e309', '1e-320', '1e-45', '1e400'),
  *('-1', '0', '-0', '0.0', '1', '2', '3.7', '0.5', '-0.5', '1e30', '1_000', '0x10', '1+1j', '1e'),
  *('99999999999', '2147483647', '2147483648', '4294967296', '18446744073709551616', '9' * 5000),
  *('()', '(1,)', "('a',)", "('prune', 'prune')", '(1, 2)', '(0, 0)', '(4, 4)', '[]', '[[[]]]'),
  *('{}', "{'a': 1}", '{1}', "b'x'", '...', 'None', 'none', 'null', 'True', 'true', 'False'),
  *(
    'nope',
    'n' * 300,
    'n' * 70_000,
    'Dvořák',
    '名前',
    '🙂',
    '\uff11\uff12',
    '\u202egnp.exe',
    '\ufeff1',
  ),
  *('\x1b[31mred\x1b[0m', '\x1b]0;title\x07', 'a\nstep 9/9  loss 0.0', 'a\r', '\t', '\u2028'),
  *('\udcff', '\x7f', '../../etc', '/dev/null/x', '/etc/passwd', '~', '..', '.', 'a/b/c'),
  *('gs://bucket/x', 'file:///etc/passwd', 'C:\\x', '$HOME', '`id`', '%s%n%d', '{0}', '{'),
  *('<script>alert(1)</script>', '=1+1', '@x', '=', ':', ',', "'", '"', '#', '\\', '*', '(', '[a'),
  *('(' * 10_000, '[' * 50_000, '-' * 3_000 + '1', "__import__('os').system('true')", 'lambda: 0'),
  *('a,b', 'fc1=1', 'fc1=nan', '3.3x2.5', '1x', 'nanxnan', 'localhost:1', ':0', 'a=b=c', '(?'),
)


def hostile(chance: random.Random) -> str:
  """Returns one of them."""
  return chance.choice(HOSTILE)


def around(kind: object, chance: random.Random) -> str:
  """Returns a value just beyond a bound of a definition, or just within one.

  Args:
    kind: what the setting may be, of `sparsejax.experiment.config.setting_kinds`.
    chance: what draws.
  """
  from sparsejax.experiment.config import setting_kinds

  if isinstance(kind, setting_kinds.Optional | setting_kinds.Scheduled):
    other = (
      ['none', '', '()', 'True'] if isinstance(kind, setting_kinds.Optional) else ['None', '{}']
    )
    return around(kind.kind, chance) if chance.random() < 0.8 else chance.choice(other)
  return chance.choice(_around(kind))


def _around(kind):
  from sparsejax.experiment.config import setting_kinds

  if isinstance(kind, setting_kinds.Integer):
    beyond = [] if kind.high is None else [kind.high + 1, kind.high + 0.5, -kind.high]
    return [str(x) for x in (kind.low - 1, kind.low, kind.low + 0.5, float(kind.low), 'True')] + [
      str(x) for x in beyond
    ]
  if isinstance(kind, setting_kinds.Number):
    found = ['True', "'1'", 'nan', '-inf', '3.5e38', '1e309']
    for bound, sign in ((kind.low, -1), (kind.high, 1)):
      if abs(bound) != float('inf'):
        step = max(abs(bound), 1.0) * 1e-6
        found += [repr(bound), repr(bound + sign * step), repr(bound - sign * step)]
    return found
  if isinstance(kind, setting_kinds.Flag):
    return ['1', '0', 'yes', 'on', 'TRUE', 'false', "'True'", '']
  if isinstance(kind, setting_kinds.Choice):
    first = kind.names[0]
    return [first.upper(), first[:-1], f'{first} ', f"'{first}'", f"('{first}',)", *kind.names]
  if isinstance(kind, setting_kinds.Names | setting_kinds.Patterns):
    return ["('trace',)", "('trace', 'trace')", "'trace'", '(1,)', '((),)', "('',)", "('(',)", '()']
  if isinstance(kind, setting_kinds.Sides):
    return ['(4,)', '(4, 4, 4)', '(4, 0)', '(4.0, 4)', '(True, 4)', "('4', 4)", '4', '[2, 2]']
  if isinstance(kind, setting_kinds.Pattern):
    return ['(', '[', '*', '(?P<a>', 'a{99999999999}', '^fc1/']
  if isinstance(kind, setting_kinds.Name):
    return ['a/b', '.', '..', 'n' * 100, 'n' * 101, 'é' * 51, 'a\x1b[2J', 'a b']
  if isinstance(kind, setting_kinds.Table):
    return ['{}', "{'fc1': 'x'}", "{'fc1': None}", '{1: 1.0}', '1.0', "{'fc1': 1.0}"]
  return ['a\nb', 'a\x1b[2Jb', '\u2028', '', 'a b', "('a',)"]
