"""Counts of a network (weights, active weights, parameters, MACs), and their costs."""
