"""The leaves of a tree of parameters: their paths, kinds and axes."""
