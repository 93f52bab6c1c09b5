"""The page of shipped networks: its rows, its figures and its text."""
