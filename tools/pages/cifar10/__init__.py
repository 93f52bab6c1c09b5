"""The page of CIFAR-10: its rows, what is read of them, its figures and its text."""
