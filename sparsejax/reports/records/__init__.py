"""The files of runs and searches, read, checked and grouped into experiments."""
