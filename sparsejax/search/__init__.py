"""Search over the settings of any config: the engine behind `python -m sparsejax.sweep`."""
