"""What all training commands share: planned batches, the Trainer, its arguments, progress, resuming."""
