"""The results of a finished training, and new deployments of its posterior."""
