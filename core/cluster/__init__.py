"""Hints between the members that share a database: who hears one looks at what is stored.

The protocol, and its local form for a database that one process has for itself, which does nothing. What PostgreSQL's
members do is below, in a room of its own; nothing here knows a database.
"""
