"""Faster inference on CPU from unstructured sparsity: products that skip zero weights."""

from sparsejax.cpu_sparse.apply import SparseFunction, sparse_apply
from sparsejax.cpu_sparse.autotuning import Choice

__all__ = ['Choice', 'SparseFunction', 'sparse_apply']
