"""Stages `distill` and `train-teacher`: losses, batches, the training loop."""
