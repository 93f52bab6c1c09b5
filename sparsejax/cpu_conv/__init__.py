"""Convolutions that are fast on CPU, and which of them a layer is computed by."""
