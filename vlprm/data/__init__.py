"""Datasets on disk: our format, TRL's, other groups' formats, and your own problem files."""
