"""The plan of a search: its settings, its space, its brackets."""
