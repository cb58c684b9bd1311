"""The server as a process: memory, children, signals, its name and version. Knows no request."""
