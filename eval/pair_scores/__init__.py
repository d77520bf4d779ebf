"""Evaluation of whatever prefers one of two responses."""
