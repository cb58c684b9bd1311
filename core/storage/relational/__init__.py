"""What the storages of SQLite and PostgreSQL have in common, which each opens, holds and reads in its own way."""
