"""What a storage promises, its tables and rows, and the storage in memory. It keeps what it is given."""
