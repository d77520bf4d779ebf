"""Rewards of labelled steps against their labels."""
