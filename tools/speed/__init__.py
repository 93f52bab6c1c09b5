"""The times of a training step and a start, compared with PyTorch and with earlier versions."""
