"""The Optax gradient transformations."""
