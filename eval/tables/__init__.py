"""Table rows and formats."""
