"""A2A's own types, errors and JSON, and nothing of this server."""
