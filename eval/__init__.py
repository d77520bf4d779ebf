"""A policy, a reward model and benchmarks -> records, tables and pages. The files here are commands."""
