"""Webhooks: registrations, pending deliveries, and their delivery. No task waits for any of this."""
