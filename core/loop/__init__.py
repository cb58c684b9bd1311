"""How work takes its turns on the event loop, and whose code holds it. Knows nothing of tasks."""
