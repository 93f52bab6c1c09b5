"""Batch normalisation with the constants that every network here uses."""

from functools import partial

from flax import linen as nn

# The moments are taken in float32 whatever the dtype of the activations; axis_name, a pmap axis,
# makes them those of the whole batch.
BatchNorm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)
