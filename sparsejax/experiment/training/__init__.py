"""Builds a training from a config, and runs it."""
