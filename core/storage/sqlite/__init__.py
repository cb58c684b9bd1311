"""The storage in a SQLite file: one writer, several readers, and what keeps the file whole."""
