"""The tables of a report, and its sentences."""
