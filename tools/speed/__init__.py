"""What a training step and a start take, beside PyTorch and before and after."""
