"""The parts that `prune` is made of: schedule, criterion, granularity, allocation, update rule."""
