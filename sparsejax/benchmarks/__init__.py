"""Measurements of `python -m sparsejax.benchmark`: our programs and PyTorch's, in turns."""
