"""What the core asks of the members that share a database: who owns a live tree, and hints between members.

Protocols, and their local forms for a database that one process has for itself, which do nothing. What PostgreSQL's
members do is below, in a room of its own; nothing here knows a database.
"""
