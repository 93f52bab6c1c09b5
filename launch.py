"""Runs one experiment: the same as `python -m sparsejax.launch`, which says how."""

from sparsejax.launch import start

if __name__ == '__main__':
  start()
