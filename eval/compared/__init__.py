"""Reward models against the vote on one stored pool."""
