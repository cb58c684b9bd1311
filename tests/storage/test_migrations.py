"""The schema's history (`core.storage.migrate`)."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from core.errors import StorageError
from core.storage import migrate as migrate_module
from core.storage.migrate import REVISIONS, migrate, stored_revision
from core.storage.tables import metadata


def schema(connection: sqlite3.Connection) -> dict[str, str]:
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND name != 'alembic_version'"
    )
    return {name: " ".join(sql.split()) for name, sql in rows}


def test_the_migrations_make_the_tables_that_the_code_describes(tmp_path: Path) -> None:
    path = tmp_path / "a%b.db"
    migrate(path)
    engine = create_engine(f"sqlite:///{tmp_path}/described.db")
    metadata.create_all(engine)
    engine.dispose()

    migrated, described = sqlite3.connect(path), sqlite3.connect(tmp_path / "described.db")
    assert schema(migrated) == schema(described)
    migrated.close()
    described.close()


def test_the_known_revisions_are_those_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate_module.__file__).parent / "migrations"))
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(revisions)) == REVISIONS


def test_a_database_of_the_first_schema_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    migrate(path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE documents")
    connection.execute("DROP TABLE folds")
    connection.execute("DROP INDEX trees_ended")
    connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.execute("INSERT INTO events VALUES ('t', 1, 'k', 't', 1.0, x'7b7d', 0)")
    connection.commit()
    connection.close()

    migrate(path)

    assert stored_revision(path) == REVISIONS[-1]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT tree_id FROM events").fetchall() == [("t",)]
    assert connection.execute("SELECT * FROM documents").fetchall() == []
    assert connection.execute("SELECT * FROM folds").fetchall() == []
    connection.close()


def test_a_current_database_is_left_alone_and_alembic_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    migrate(path)
    before = path.read_bytes()
    program = (
        "import sys; from pathlib import Path; from core.storage.migrate import migrate;"
        f"migrate(Path({str(path)!r})); print('alembic' in sys.modules)"
    )

    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert output.stdout.strip() == "False"
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    migrate(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StorageError, match=r"9999.*newer version"):
        migrate(path)

    assert path.read_bytes() == before


def test_a_foreign_database_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE something (x)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StorageError, match="another program"):
        migrate(path)

    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_bytes(b"hello, this is not a database at all" * 100)
    with pytest.raises(StorageError, match="not a database"):
        migrate(path)


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.touch()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    original = sqlite3.connect

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError, match="locked"):
        patch.setattr(sqlite3, "connect", lambda *args, **options: original(*args, **{**options, "timeout": 0}))
        migrate(path)

    holder.close()
    assert stored_revision(path) is None
    assert os.path.getsize(path) == 0
