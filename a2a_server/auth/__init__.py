"""The caller of a request, and what proves it. Knows no task."""
