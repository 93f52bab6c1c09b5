"""The pages of results: their rows, what is kept of each, and what is made of it."""
