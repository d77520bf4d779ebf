"""Training of reward models: rows, batches, losses, the Trainer."""
