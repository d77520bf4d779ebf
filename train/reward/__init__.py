"""Training of reward models: rows, batches, losses and the Trainer."""
