"""The run directory: its owner, its checkpoints and its metrics."""
