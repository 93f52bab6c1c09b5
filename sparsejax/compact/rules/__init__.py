"""What each primitive does with indices, with constants, and with smaller values."""
