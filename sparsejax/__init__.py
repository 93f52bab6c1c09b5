"""sparsejax: every sparsity method a link of an Optax chain, every experiment one config.

`prune` takes its parts from `criteria`, `allocation` and `granularity`; `sparsejax.models` has the
networks, and needs Flax, which the rest of this index does not.
"""

from sparsejax.sparsity import allocation, criteria, granularity
from sparsejax.sparsity.schedules import PruningSchedule, cubic, one_shot
from sparsejax.transforms.pruning import PruneState, apply_masks, prune

__all__ = [
  'PruneState',
  'PruningSchedule',
  'allocation',
  'apply_masks',
  'criteria',
  'cubic',
  'granularity',
  'one_shot',
  'prune',
]
