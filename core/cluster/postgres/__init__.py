"""Hints between members that share a database of PostgreSQL, by LISTEN and NOTIFY.

Loaded only where the database's URL says PostgreSQL. It writes no tree's log: that is the orchestrator's.
"""
