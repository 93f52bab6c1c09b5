"""Weight sharing, and small model files for pruned networks.

`share` clusters the weights of each layer, `share_weights` trains the centroids of the clusters,
`save` and `load` write and read a network, and `sizes` returns the bytes of each part of a file.
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
