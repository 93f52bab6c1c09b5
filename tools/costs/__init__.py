"""What the methods cost: links, masks, posteriors, epochs, devices."""
