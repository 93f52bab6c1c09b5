"""Turns the settings of a chain into its Optax transformation."""
