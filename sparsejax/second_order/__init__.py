"""One-shot pruning with data, from the second moments of each layer's inputs.

The rules are functions of one layer: `sparsegpt` and `wanda` take (kernel, moments, keep), with the
kernel as (groups, outputs, inputs), and return the new kernel and its mask.
"""

from sparsejax.second_order.moments import Moments, moments_of
from sparsejax.second_order.sparsegpt import sparsegpt
from sparsejax.second_order.wanda import wanda

__all__ = ['Moments', 'moments_of', 'sparsegpt', 'wanda']
