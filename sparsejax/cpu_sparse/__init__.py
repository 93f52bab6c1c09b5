"""Zeros that pay on CPU: a function of fixed parameters, computed without those that are zero."""
