"""The pure functions of a training step, and of the events between steps."""
