"""Chat servers: where they are, the HTTP client, messages."""
