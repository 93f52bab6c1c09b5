"""The functions of a step, and of the events between steps."""
