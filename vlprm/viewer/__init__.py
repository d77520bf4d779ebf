"""Self-contained HTML pages of runs and datasets, and a local server for large ones."""
