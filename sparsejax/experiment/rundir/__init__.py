"""The run directory: whose it is, its checkpoints and its metrics."""
