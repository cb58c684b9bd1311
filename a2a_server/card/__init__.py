"""The agent card: what it says, its signature and its keys."""
