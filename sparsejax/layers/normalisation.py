"""Batch normalisation with the constants that every network here uses."""

from functools import partial

from flax import linen as nn

MOMENTUM = 0.9  # of the running averages: a becomes 0.9 a + 0.1 m

# The moments are taken in float32 whatever the dtype of the activations; axis_name, a pmap axis,
# makes them those of the whole batch.
BatchNorm = partial(nn.BatchNorm, momentum=MOMENTUM, epsilon=1e-5)
