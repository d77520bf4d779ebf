"""Likeness of images."""
