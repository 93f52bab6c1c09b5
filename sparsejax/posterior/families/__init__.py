"""The families of posteriors, one file each, and the divergences that they cost."""
