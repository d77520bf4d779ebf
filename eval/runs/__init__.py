"""Runs of methods on benchmarks: jobs, records, pools, measures."""
