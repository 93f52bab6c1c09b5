"""The config of an experiment: its fields, their defaults, and the values they may have."""
