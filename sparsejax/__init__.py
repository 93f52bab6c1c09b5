"""sparsejax: every sparsity method is a link of an Optax chain, every experiment is one config.

`prune` takes its parts from `criteria`, `granularity`, `allocation` and `update_rules`; `lobs`
solves a layer again for the weights that stay; `posterior` knows the meaning of a variational
layer's leaves; `shipping` shares weights and writes a network to one small file. `sparsejax.models`
has the networks and needs Flax, which the rest of this index does not. `run` trains a config and
`load` reads a finished run; both need the extra `experiments`.
"""

# ruff: noqa: E402  (the other imports take seconds, during which a signal may end the command)
import importlib
import sys
from typing import Any

from sparsejax.internal import needs, signals

signals.end_in_one_line(
  signals.command_name(getattr(sys.modules['__main__'], '__file__', None), sys.orig_argv)
)

from sparsejax import posterior
from sparsejax.sparsity import lobs
from sparsejax.sparsity.batch_norm import recalibrate_batch_norm
from sparsejax.sparsity.counting import costs
from sparsejax.sparsity.counting.measure import count_macs
from sparsejax.sparsity.counting.measure import report as sparsity_report
from sparsejax.sparsity.leaves.layout import Layout
from sparsejax.sparsity.mask_files import load_masks, save_masks
from sparsejax.sparsity.packing import pack_masks, unpack_masks
from sparsejax.sparsity.parts import allocation, criteria, granularity, update_rules
from sparsejax.sparsity.parts.schedules import PruningSchedule, cubic, iterative, one_shot, periodic
from sparsejax.sparsity.program import layouts_of, positions_of
from sparsejax.sparsity.prox import group_soft_threshold, soft_threshold
from sparsejax.sparsity.prune_to import prune_to
from sparsejax.transforms.bounding import bound_variances
from sparsejax.transforms.holding import HoldState, hold
from sparsejax.transforms.inner.masking import apply_masks
from sparsejax.transforms.inner.with_grad import with_grad
from sparsejax.transforms.kl_gradients import KLState, add_kl_gradients
from sparsejax.transforms.preconditioners import adam_metric, amsgrad_metric, rms_metric
from sparsejax.transforms.proximal import ProximalState, proximal_group_l1, proximal_l1
from sparsejax.transforms.pruning import PruneState, prune
from sparsejax.transforms.rewinding import RewindState, rewind
from sparsejax.transforms.straight_through import StraightThroughState, straight_through

__version__ = '0.1.0'

__all__ = [
  'HoldState',
  'KLState',
  'Layout',
  'ProximalState',
  'PruneState',
  'PruningSchedule',
  'RewindState',
  'StraightThroughState',
  'adam_metric',
  'add_kl_gradients',
  'allocation',
  'amsgrad_metric',
  'apply_masks',
  'bound_variances',
  'compact',
  'costs',
  'count_macs',
  'criteria',
  'cubic',
  'granularity',
  'group_soft_threshold',
  'hold',
  'iterative',
  'layouts_of',
  'load',
  'load_masks',
  'lobs',
  'one_shot',
  'pack_masks',
  'periodic',
  'positions_of',
  'posterior',
  'proximal_group_l1',
  'proximal_l1',
  'prune',
  'prune_to',
  'prune_with_data',
  'recalibrate_batch_norm',
  'register',
  'rewind',
  'rms_metric',
  'run',
  'save_masks',
  'second_order',
  'share_weights',
  'shipping',
  'soft_threshold',
  'sparsity_report',
  'straight_through',
  'unpack_masks',
  'update_rules',
  'with_grad',
]

_LATER = {
  'compact': 'sparsejax.compact',
  'prune_with_data': 'sparsejax.second_order.one_shot',
  'second_order': 'sparsejax.second_order',
  'share_weights': 'sparsejax.shipping.share_weights',
  'shipping': 'sparsejax.shipping',
}
_WITH_EXTRAS = {
  'load': 'sparsejax.experiment.python',
  'register': 'sparsejax.experiment.training.registry',
  'run': 'sparsejax.experiment.python',
}


def __getattr__(name: str) -> Any:
  """Imports a name that few use, or that needs an extra, when it is first used."""
  if name in _LATER:
    module = importlib.import_module(_LATER[name])
    return getattr(module, name, module)
  if name not in _WITH_EXTRAS:
    raise AttributeError(f"module 'sparsejax' has no attribute '{name}'")
  with needs.needed('experiments'):
    return getattr(importlib.import_module(_WITH_EXTRAS[name]), name)
