"""The bytes of a model file: its format, the layouts of its leaves, writing and reading it."""
