"""What sparsity is and how it is chosen: pure functions, without Optax and without Flax."""
