"""Zeros that pay on CPU: a function of fixed parameters, computed without those that are zero."""

from sparsejax.cpu_sparse.apply import SparseFunction, sparse_apply
from sparsejax.cpu_sparse.planning import Choice

__all__ = ['Choice', 'SparseFunction', 'sparse_apply']
