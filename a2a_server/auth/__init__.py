"""Who calls, and what proves it. Knows no task."""
