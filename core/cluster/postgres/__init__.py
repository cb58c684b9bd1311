"""Members that share a database of PostgreSQL: their leases, and the hints that they send each other.

Loaded only where the database's URL says PostgreSQL. It writes no tree's log: that is the orchestrator's.
"""
