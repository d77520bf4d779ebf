"""Search trees: estimators, the growing tree, and the run folder that stores it."""
