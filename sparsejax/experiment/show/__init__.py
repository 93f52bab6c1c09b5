"""What a run shows: its progress on the terminal, and its picture."""
