"""One program for each client; each runs in the environment of its client."""
