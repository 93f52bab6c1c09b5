"""From the settings of a chain to its Optax transformation."""
