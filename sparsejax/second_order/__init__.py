"""One-shot pruning with data, from the second moments of each layer's inputs.

`prune_with_data` prunes any network, layer after layer. The rules are functions of one layer:
`sparsegpt`, `wanda` and `lobs` take (kernel, moments, keep), with the kernel as (groups, outputs,
inputs), and return a new kernel and its mask.
"""

from sparsejax.second_order.lobs import lobs
from sparsejax.second_order.moments import Moments, moments_of
from sparsejax.second_order.one_shot import Pruned, prune_with_data
from sparsejax.second_order.sparsegpt import sparsegpt
from sparsejax.second_order.wanda import wanda

__all__ = [
  'Moments',
  'Pruned',
  'lobs',
  'moments_of',
  'prune_with_data',
  'sparsegpt',
  'wanda',
]
