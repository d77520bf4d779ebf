"""Configs of label fusion, and the sources of verdicts."""
