"""Training of the built-in policy and backbone."""
