"""From a finished run to what its users get: `python -m sparsejax.ship`."""
