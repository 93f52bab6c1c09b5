"""The smaller network of any JAX function: what its zeros let go, taken out of every parameter."""

from sparsejax.compact.planning import Plan, Tie, plan
from sparsejax.compact.shrinking import Shrunk, shrink

__all__ = ['Plan', 'Shrunk', 'Tie', 'plan', 'shrink']
