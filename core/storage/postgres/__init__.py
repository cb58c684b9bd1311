"""The storage in PostgreSQL: one member writes, several connections read. Nothing here is loaded for a SQLite URL."""
