"""Shrinks any JAX function: units that the zeros in its parameters make dead are removed."""

from sparsejax.compact.planning import Plan, Tie, plan
from sparsejax.compact.shrinking import Shrunk, shrink

__all__ = ['Plan', 'Shrunk', 'Tie', 'plan', 'shrink']
