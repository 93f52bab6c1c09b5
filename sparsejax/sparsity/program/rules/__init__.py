"""Rules that carry the axes of parameters through each primitive of a traced program."""
