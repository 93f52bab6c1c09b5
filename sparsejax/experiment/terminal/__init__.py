"""Terminal output (lines, tables, numbers, errors) and command-line arguments."""
