"""The field's claims, each measured here: `python -m tests.perf.claims`."""
