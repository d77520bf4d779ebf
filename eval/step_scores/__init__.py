"""Evaluation of step rewards against step labels."""
