"""The families of posteriors, one file each, and their KL divergences."""
