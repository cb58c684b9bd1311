"""Webhooks: who wants to be told, what is owed to whom, and its delivery. No task waits for any of this."""
