"""Ships a finished run as a small network in files, with measurements: `sparsejax.ship`."""
