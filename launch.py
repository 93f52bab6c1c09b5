"""Runs one experiment: the same as `python -m sparsejax.launch`, which says how.

The map of a run, from the config to its summary, is in `sparsejax/experiment/__init__.py`.
"""

from sparsejax.launch import start

if __name__ == '__main__':
  start()
