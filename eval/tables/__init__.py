"""Rows of tables, and their formats."""
