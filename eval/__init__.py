"""Commands that evaluate policies and reward models on benchmarks: records, tables and pages."""
