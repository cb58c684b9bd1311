"""The schema's history (`core.storage.sqlite.migrate`)."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from msgspec.structs import replace

from core.model import events as e
from core.model.content import Part, Said
from core.model.errors import StorageError
from core.model.owners import owner_of
from core.model.task import Dependency, On, Question
from core.storage import former_content, migrations, retire
from core.storage.base import Append, EventQuery
from core.storage.migrations.run import upgrade
from core.storage.sqlite.integrity import examine
from core.storage.sqlite.migrate import migrate, stored_revision
from core.storage.sqlite.sql import SqlStorage
from core.storage.tables import REVISIONS
from tests.core.contents import artifact, said, texts
from tests.core.storage.former import before_content, told_by
from tests.core.storage.samples import created, harm, recorded
from tests.core.storage.test_retention import ended_tree, log_of, part_of


def before_compactions(connection: sqlite3.Connection) -> None:
    """Make it a database of the schema 0005."""
    before_content(connection)
    connection.execute("DROP INDEX compactions_dropped")
    connection.execute("ALTER TABLE compactions RENAME TO folds")
    connection.execute("CREATE INDEX folds_dropped ON folds (tree_id) WHERE is_dropped = 1")
    connection.execute("UPDATE alembic_version SET version_num = '0005'")


def before_tenants(connection: sqlite3.Connection) -> None:
    """Make it a database of the schema 0004, as far as tenants and compactions go."""
    before_compactions(connection)
    for index in ("tasks_by_tenant", "tasks_roots", "tasks_open"):
        connection.execute(f"DROP INDEX {index}")
    for index in ("tasks_by_owner", "tasks_roots", "tasks_open"):
        connection.execute(f"CREATE INDEX {index} ON tasks (owner)")
    for table in ("trees", "tasks"):
        connection.execute(f"ALTER TABLE {table} DROP COLUMN tenant")


def schema(path: Path) -> tuple[dict[str, str], str | None]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    connection.close()
    # SQLite quotes the name of a table that was renamed.
    return {name: re.sub(r'[\s"]', "", sql) for name, sql in rows}, stored_revision(path)


def test_a_new_database_is_what_the_migrations_make_of_an_empty_one(tmp_path: Path) -> None:
    migrated, made = tmp_path / "a%b.db", tmp_path / "made.db"
    upgrade(migrated)
    migrate(made)
    assert schema(migrated) == schema(made)


def test_the_known_revisions_are_those_of_alembic() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(revisions)) == REVISIONS


def test_a_database_of_the_first_schema_keeps_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    migrate(path)
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE documents")
    before_tenants(connection)
    connection.execute("DROP TABLE folds")
    for index in ("trees_ended", "trees_by_context", "tasks_by_owner", "tasks_open"):
        connection.execute(f"DROP INDEX {index}")
    connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.execute("INSERT INTO events VALUES ('t', 1, 'k', 't', 1.0, x'7b7d', 0)")
    connection.commit()
    connection.close()

    migrate(path)

    assert stored_revision(path) == REVISIONS[-1]
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT tree_id FROM events").fetchall() == [("t",)]
    assert connection.execute("SELECT * FROM documents").fetchall() == []
    assert connection.execute("SELECT * FROM compactions").fetchall() == []
    connection.close()


@pytest.mark.asyncio
async def test_rows_of_a_schema_without_tenants_get_theirs_and_optional_dependencies_say_any(tmp_path: Path) -> None:
    """The rows are served as before, byte by byte but for the dependencies; `db check` finds nothing wrong."""
    path = tmp_path / "tasks.db"
    storage = SqlStorage(str(path))
    owners = {owner_of("t", "ann"): "t", owner_of("", "root"): "", "anonymous": "", '["x"]': "", "[1, 2]": ""}
    await storage.open()
    for n, owner in enumerate(owners):
        await storage.append(created(f"tree{n}", 2, owner=owner))
    await storage.close()
    text = '"required":false'
    with closing(sqlite3.connect(path)) as connection:
        before_tenants(connection)
        (spec,) = connection.execute("SELECT spec FROM tasks WHERE id = 'tree0.1'").fetchone()
        needs = f'"dependencies":[{{"id":"tree0",{text}}},{{"id":"x","required":true}}]'
        spec = spec[:-1] + f',{needs},"inputs":{{"n":1.50,"a":{{{text}}}}}}}'.encode()
        connection.execute("UPDATE tasks SET spec = ?, spec_crc = ? WHERE id = 'tree0.1'", (spec, crc32(spec)))
        connection.execute("UPDATE alembic_version SET version_num = '0004'")
        connection.commit()

    await storage.open()
    try:
        for n, (owner, tenant) in enumerate(owners.items()):
            head, task = await storage.head(f"tree{n}", tenant=tenant), await storage.task(f"tree{n}.1", tenant=tenant)
            assert head is not None and task is not None and head.owner == task.owner == owner
            assert await storage.head(f"tree{n}", tenant="other") is None
        task = await storage.task("tree0.1")
        assert task is not None
        assert task.dependencies == (Dependency("tree0", On.ANY), Dependency("x"))
        assert task.inputs == {"n": 1.5, "a": {"required": False}}
    finally:
        await storage.close()
    with closing(sqlite3.connect(path)) as connection:
        (spec,) = connection.execute("SELECT spec FROM tasks WHERE id = 'tree0.1'").fetchone()
    assert b'"inputs":{"n":1.50,"a":{"required":false}}' in spec
    assert not examine(path).problems
    harm(path, "UPDATE tasks SET tenant = 'u' WHERE id = 'tree0'")
    (problem,) = examine(path).problems
    assert problem.startswith("the tenant of tree0 ")


@pytest.mark.parametrize(
    ("harm_done", "told"),
    [
        ("DELETE FROM folds WHERE tree_id = 't'", "the log of tree t has gaps"),
        ("UPDATE folds SET kept = 9 WHERE tree_id = 't'", "The stored compaction of tree t is corrupt"),
        (
            "DELETE FROM events WHERE tree_id = 'd' AND seq = 5",
            "what is left of the log of the dropped tree d has gaps",
        ),
        ("DELETE FROM trees WHERE id = 't'", "1 rows of folds belong to no tree"),
    ],
)
@pytest.mark.asyncio
async def test_compacted_logs_of_a_schema_that_called_them_folds_stay_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm_done: str, told: str
) -> None:
    """Were these rows overlooked, what was left out on purpose would be told as lost, and what is lost would not."""
    monkeypatch.setattr(retire, "MAX_EVENTS", 10)
    path, spoiled = tmp_path / "tasks.db", tmp_path / "spoiled.db"
    storage = SqlStorage(str(path))
    await storage.open()
    head = await ended_tree(storage, "t", count=5)
    await storage.compact([part_of(head)])
    await storage.drop([await ended_tree(storage, "d", count=20)])
    log, left = await log_of(storage, "t"), await log_of(storage, "d")
    await storage.close()
    with closing(sqlite3.connect(path)) as connection:
        before_compactions(connection)
        connection.commit()
    assert not examine(path).problems
    spoiled.write_bytes(path.read_bytes())
    harm(spoiled, harm_done)
    assert any(problem.startswith(told) for problem in examine(spoiled).problems)

    await storage.open()

    assert await storage.compacted("t") == head.version - 1
    assert await log_of(storage, "t") == log
    assert await log_of(storage, "d") == left
    assert await storage.sweep(100) is True
    assert await log_of(storage, "d") == []
    await storage.close()
    assert stored_revision(path) == REVISIONS[-1]
    assert not examine(path).problems


async def stored_content(path: Path, count: int) -> Any:
    """A tree with so many pieces of an artifact, and with everything else that has content: what of it is stored."""
    asked, answered = (
        Part(data=None, media_type="a/b", metadata={}),
        Said(texts("yes"), {"k": 1.0}, ("u",), "m", "c", "t"),
    )
    events: list[e.Event] = [
        e.MessageReceived("t", answered),
        e.MessageSent("t", 1, said("x", metadata={})),
        *(e.ArtifactAdded("t", 1, artifact("a", str(n), name="n"), n > 0) for n in range(count)),
        e.InputRequested("t", 1, (asked,)),
        e.InputProvided("t", "yes", answered),
        e.InputProvided("t", {"messageId": "of a caller"}),
    ]
    first = created("t", 2)
    head = replace(first.head, version=1 + len(events))
    told = tuple(recorded(head, seq, event) for seq, event in enumerate(events, 2))
    root = replace(first.tasks[0], answers=("yes", "no"), answer_messages=(answered, None))
    output = [each for each in events if isinstance(each, e.MessageSent | e.ArtifactAdded)]
    root = replace(root, told=told_by(output, lambda content: content))
    child = replace(first.tasks[1], question=Question(content=(asked,), asked_at=2.0), result={"question": {}})
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.append(first)
    await storage.append(Append(head=head, events=told, tasks=(root, child)))
    await storage.close()
    with closing(sqlite3.connect(path)) as connection:
        before_content(connection)
        connection.commit()
    return list(told), [root, child]


async def content_in(path: Path) -> Any:
    storage = SqlStorage(str(path))
    await storage.open()
    events, tasks = (
        await storage.events(EventQuery(tree_id="t", after=1, limit=100_000)),
        [await storage.task(each) for each in ("t", "t.1")],
    )
    await storage.close()
    return list(events), tasks


@pytest.mark.asyncio
async def test_content_of_a_schema_that_kept_it_as_a2a_s_json_is_the_same(tmp_path: Path) -> None:
    """Of more rows than are looked at together."""
    path = tmp_path / "tasks.db"
    stored = await stored_content(path, count=2_100)
    assert not examine(path).problems
    assert await content_in(path) == stored
    assert stored_revision(path) == REVISIONS[-1]
    assert not examine(path).problems


@pytest.mark.asyncio
async def test_a_row_that_was_corrupt_before_is_told_as_corrupt_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    await stored_content(path, count=3)
    harm(path, "UPDATE events SET body = replace(body, 'tree_id', 'tree_di') WHERE seq IN (2, 3)")
    harm(path, "UPDATE tasks SET state_crc = 7 WHERE id = 't'")
    told = ("The stored task t is corrupt", *(f"The stored event {seq} of tree t is corrupt" for seq in (2, 3)))
    assert examine(path).problems == told
    migrate(path)
    assert examine(path).problems == told


@pytest.mark.asyncio
async def test_a_migration_that_is_broken_off_leaves_the_rows_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tasks.db"
    stored = await stored_content(path, count=1_100)
    real = former_content.event_row

    def broken_off(row: Any) -> Any:
        if row[1] == 1_050:
            raise KeyboardInterrupt
        return real(row)

    before = path.read_bytes()
    monkeypatch.setattr(former_content, "event_row", broken_off)
    with pytest.raises(KeyboardInterrupt):
        migrate(path)
    assert stored_revision(path) == "0006"
    assert path.read_bytes() == before
    monkeypatch.undo()
    assert await content_in(path) == stored


def test_no_connection_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep the file of a server that ends, or that never began."""
    connect, made = sqlite3.connect, []

    def kept(*args: Any, **options: Any) -> sqlite3.Connection:
        made.append(connect(*args, **options))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", kept)
    migrate(tmp_path / "tasks.db")
    migrate(tmp_path / "tasks.db")

    assert len(made) == 3
    for connection in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


@pytest.mark.parametrize("is_new", [True, False])
def test_alembic_is_loaded_for_old_databases_only_and_a_current_one_is_left_alone(tmp_path: Path, is_new: bool) -> None:
    path = tmp_path / "tasks.db"
    if not is_new:
        migrate(path)
    before = None if is_new else path.read_bytes()
    program = (
        "import sys; from pathlib import Path; from core.storage.sqlite.migrate import migrate;"
        f"migrate(Path({str(path)!r})); print('alembic' in sys.modules)"
    )

    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert output.stdout.strip() == "False"
    assert before is None or path.read_bytes() == before


def test_a_newer_schema_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    migrate(path)
    harm(path, "UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()

    with pytest.raises(StorageError) as told:
        migrate(path)

    assert str(told.value) == (
        f"The database {path} has schema 9999, unknown to this program (latest: {REVISIONS[-1]}): "
        "it was written by a newer version of this program"
    )
    assert path.read_bytes() == before


def test_a_database_that_does_not_tell_its_schema_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    migrate(path)
    harm(path, "DELETE FROM alembic_version")
    before = path.read_bytes()
    assert stored_revision(path) is None

    with pytest.raises(StorageError, match="cannot be migrated: table alembic_version already exists"):
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


@pytest.mark.parametrize("revision", [None, "0001"])
def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, revision: str | None) -> None:
    path = tmp_path / "tasks.db"
    path.touch()
    if revision is not None:
        migrate(path)
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE documents")
            connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        connection.close()
    before = path.read_bytes()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    original = sqlite3.connect

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StorageError, match="locked"):
        patch.setattr(sqlite3, "connect", lambda *args, **options: original(*args, **{**options, "timeout": 0}))
        migrate(path)

    holder.close()
    assert stored_revision(path) == revision
    assert path.read_bytes() == before
