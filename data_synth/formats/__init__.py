"""Readers and writers of published step-label formats."""
