"""Search trees: estimators, the tree, and the run folder that keeps it."""
