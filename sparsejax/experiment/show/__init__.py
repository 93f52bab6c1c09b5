"""The progress of a run on the terminal, and the picture of its trace."""
