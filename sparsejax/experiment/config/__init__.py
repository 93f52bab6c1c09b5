"""What an experiment's config may say: its fields, their defaults, and what each may be."""
