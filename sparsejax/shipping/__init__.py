"""What is handed over: weights shared in clusters, trained on as such, and one small file of them.

`share` finds the clusters of each layer, `share_weights` trains their centroids, `save` and `load`
write and read a network, `sizes` says where the bytes of a file went.
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
