"""Judges of search trees."""
