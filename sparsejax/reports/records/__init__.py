"""What runs and searches left behind, read, checked and put into groups."""
