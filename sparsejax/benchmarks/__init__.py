"""What `python -m sparsejax.benchmark` times: our programs and PyTorch's, in turns."""
