"""Train reward models on step labels, and the built-in models. Each file here is a command."""
