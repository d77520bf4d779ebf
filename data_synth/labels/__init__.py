"""Configs of label fusion."""
