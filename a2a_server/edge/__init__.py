"""Below and around ASGI: connections, deadlines, framing, and how much a caller may send. Knows no method."""
