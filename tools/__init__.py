"""The programs that make results and test the tests: from the root, `python -m tools.NAME`."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
