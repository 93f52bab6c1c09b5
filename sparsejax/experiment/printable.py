"""Text of anybody's that can stand in a line of a terminal and do nothing there."""

import unicodedata

# Controls (ESC and newlines among them), halves of a letter, line ends, and what is not seen but
# turns the direction of its neighbours.
NEVER = ('Cc', 'Cs', 'Zl', 'Zp', 'Cf')
JOINERS = '\u200c\u200d'  # without which some scripts can't be written


def printable(text: object) -> str:
  r"""Returns a text in which whatever would move the cursor or hide is written as its escape.

  Example:
    >>> print(printable('red\x1b[31m\nstep 1'), printable('Dvořák, 名前'))
    red\x1b[31m\nstep 1 Dvořák, 名前
  """
  text = str(text)
  if text.isascii() and text.isprintable():
    return text
  return ''.join(letter if _is_shown(letter) else _escaped(letter) for letter in text)


def _is_shown(letter: str) -> bool:
  return letter in JOINERS or unicodedata.category(letter) not in NEVER


def _escaped(letter: str) -> str:
  return letter.encode('unicode_escape').decode('ascii')
