"""Run folders: config, records, bounded concurrency, Ray."""
