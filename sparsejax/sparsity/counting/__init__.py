"""What is counted of a network: active, weights, parameters, MACs; and what they cost."""
