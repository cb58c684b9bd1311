"""Runs trees: commands to events, events to storage, and attempts in their turn. Knows no HTTP and no database."""
