"""Step labels: fusion of Monte Carlo counts and verdicts, the judge's prompt and parser, and its reliability."""
