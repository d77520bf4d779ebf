"""The step-reward model and its inputs: families, loading, tokenization, positions, packing, attention."""
