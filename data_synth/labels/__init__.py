"""Settings of fused labels."""
