"""What a training leaves, and the deployment of its posterior anew."""
