"""A dataset of step labels -> a reward model; and the built-in models. The files here are commands."""
