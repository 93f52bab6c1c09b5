"""What a run shows: its progress on the terminal, and the picture of its trace."""
