"""The schema's history, run by alembic (`core.storage.sqlite.migrate`)."""
