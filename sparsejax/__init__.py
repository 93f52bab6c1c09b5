"""sparsejax: every sparsity method a link of an Optax chain, every experiment one config.

`prune` takes its parts from `criteria`, `granularity`, `allocation` and `updates`;
`sparsejax.models` has the networks, and needs Flax, which the rest of this index does not.
"""

from sparsejax.sparsity import allocation, costs, criteria, granularity, updates
from sparsejax.sparsity.schedules import PruningSchedule, cubic, one_shot, periodic, rounds
from sparsejax.sparsity.shrinkage import group_soft_threshold, soft_threshold
from sparsejax.transforms.proximal import (
  ProximalState,
  adam_metric,
  amsgrad_metric,
  proximal_group_l1,
  proximal_l1,
  rms_metric,
)
from sparsejax.transforms.pruning import PruneState, apply_masks, prune
from sparsejax.transforms.rewinding import RewindState, rewind

__all__ = [
  'ProximalState',
  'PruneState',
  'PruningSchedule',
  'RewindState',
  'adam_metric',
  'allocation',
  'amsgrad_metric',
  'apply_masks',
  'costs',
  'criteria',
  'cubic',
  'granularity',
  'group_soft_threshold',
  'one_shot',
  'periodic',
  'proximal_group_l1',
  'proximal_l1',
  'prune',
  'rewind',
  'rms_metric',
  'rounds',
  'soft_threshold',
  'updates',
]
