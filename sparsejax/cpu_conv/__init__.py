"""Convolutions that are fast on CPU, and the choice of one for each layer."""
