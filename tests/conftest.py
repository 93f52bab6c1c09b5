"""Every test runs on four CPU devices, with warnings as errors and no silent rank promotion."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'

import jax

jax.config.update('jax_numpy_rank_promotion', 'raise')
