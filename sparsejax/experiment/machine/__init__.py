"""The machine: its devices and processes, its memory, its files, and its description."""
