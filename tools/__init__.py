"""The programs that make results and test the tests; run `python -m tools.NAME` from the root."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
