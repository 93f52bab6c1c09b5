"""What `python -m sparsejax.benchmark` times: programs of ours and of PyTorch, in turns."""
