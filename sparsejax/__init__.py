"""sparsejax: every sparsity method a link of an Optax chain, every experiment one config."""
