"""A rule for each primitive: the indices it ties, the values it fixes, its smaller form."""
