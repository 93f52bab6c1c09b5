"""Helpers that several rooms share and no user calls: name lookup, atomic files, keys, signals."""
