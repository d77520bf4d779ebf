"""Datasets on disk: ours, TRL's, other groups', and problems of one's own."""
