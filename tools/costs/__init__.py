"""The costs of the methods: links, masks, posteriors, epochs, devices."""
