"""Parts that a test registers, and that are to be gone after it."""

from sparsejax.experiment.training import registry


def forget():
  """Leaves sparsejax as it was before anything was registered."""
  for kind, name in tuple(registry._own):
    del registry._own[kind, name]
    registry.KINDS[kind].table().pop(name)
    registry.REGISTERED_NAMES[kind].discard(name)
    for blocks in (registry.fields.EVENTS, registry.fields.LAYERS):
      if blocks.pop(name, None):
        del registry.fields.BLOCKS[name]
