"""Judges of search trees: a vision-language model, or the oracle of synthetic tasks."""
