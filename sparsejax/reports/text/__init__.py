"""The tables of a report, and what they say in words."""
