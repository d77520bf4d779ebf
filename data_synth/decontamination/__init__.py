"""Match dataset rows to benchmark items by image hash, question or embedding."""
