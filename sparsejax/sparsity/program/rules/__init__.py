"""How each primitive of a traced program carries the axes of its parameters on."""
