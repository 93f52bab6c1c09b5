"""Masks, their choice and their costs: pure functions, without Optax and without Flax."""
