"""Transformations that run inside another one: what they are given and what they keep."""
