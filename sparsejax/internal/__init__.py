"""What several rooms use and no user calls: names looked up, random streams, signals, guards."""
