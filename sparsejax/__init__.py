"""sparsejax: every sparsity method a link of an Optax chain, every experiment one config."""

from sparsejax.sparsity.schedules import PruningSchedule, cubic, one_shot
from sparsejax.transforms.pruning import PruneState, apply_masks, prune

__all__ = ['PruneState', 'PruningSchedule', 'apply_masks', 'cubic', 'one_shot', 'prune']
