"""Traced programs: the labels of their axes, and the values known in advance."""
