"""HTTP to methods and back: JSON-RPC and HTTP+JSON. Knows what a method is, and none by name."""
