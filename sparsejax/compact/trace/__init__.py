"""What a traced program is to this room: its equations, its axes, and what of it is constant."""
