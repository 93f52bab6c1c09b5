"""What is handed over: weights shared in clusters, and trained on as such.

`share` finds the clusters of each layer, `share_weights` trains their centroids.
"""

from sparsejax.shipping.share_weights import ShareWeightsState, share_weights
from sparsejax.shipping.sharing import Shared, share

__all__ = ['ShareWeightsState', 'Shared', 'share', 'share_weights']
