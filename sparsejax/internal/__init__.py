"""What several rooms use and no user calls: names looked up, files replaced, streams, signals."""
