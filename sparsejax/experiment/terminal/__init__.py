"""What reaches the terminal: lines, tables, numbers, errors; and the command line given."""
