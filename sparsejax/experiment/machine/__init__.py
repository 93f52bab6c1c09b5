"""The machine: its devices and processes, its memory, its files, and what it calls itself."""
