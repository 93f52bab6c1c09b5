"""What a search is asked for: its settings, its space, its brackets."""
