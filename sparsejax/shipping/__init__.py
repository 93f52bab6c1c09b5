"""What users are handed: weights that share a few values, and one small file of a network.

`share` clusters the weights of each layer, `share_weights` trains the clusters' values, `save` and
`load` write and read a network, and `sizes` says where the bytes of a file went.
"""

from sparsejax.shipping.file.format import Header
from sparsejax.shipping.model_file import Loaded, load, save, sizes
from sparsejax.shipping.share_weights import ShareWeightsState, share_weights
from sparsejax.shipping.sharing import Shared, share

__all__ = [
  'Header',
  'Loaded',
  'ShareWeightsState',
  'Shared',
  'load',
  'save',
  'share',
  'share_weights',
  'sizes',
]
