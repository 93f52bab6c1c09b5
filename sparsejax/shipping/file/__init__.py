"""The model file, byte by byte: its format, the layouts of its leaves, encoding and decoding."""
