"""What each leaf of a tree of parameters is: its path, its kind, its axes."""
