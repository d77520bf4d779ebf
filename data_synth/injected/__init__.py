"""Wrong siblings of right steps: who makes them, and how a tree holds them."""
