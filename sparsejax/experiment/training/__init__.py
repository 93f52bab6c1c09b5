"""From a config to a training, and the training itself."""
