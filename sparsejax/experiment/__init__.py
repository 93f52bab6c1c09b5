"""One experiment: its data, its chain, its steps, its run directory."""
