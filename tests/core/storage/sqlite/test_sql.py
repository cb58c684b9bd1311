"""What only the database in a file does: its lock, its durability, its checks (`core.storage.sqlite.sql`)."""

import asyncio
import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from msgspec.structs import replace

from core.model.errors import (
    AnswerTooLarge,
    ConfigurationError,
    DatabaseInUse,
    StorageError,
    StorageUnavailable,
)
from core.model.events import MessageReceived
from core.model.owners import owner_of
from core.model.task import Task, TaskStatus, TreeHead
from core.storage import codec, retire
from core.storage.base import LOG_BYTES, Append, Document, DocumentQuery, EventQuery, LogPart, TaskQuery, TreeQuery
from core.storage.queries import Bound
from core.storage.relational import storage as relational
from core.storage.sqlite import reader as reader_module
from core.storage.sqlite.backup import back_up, restore
from core.storage.sqlite.dialect import EVENT_QUERIES
from core.storage.sqlite.dialect import QUERIES as queries
from core.storage.sqlite.integrity import examine
from core.storage.sqlite.lock import DatabaseLock, file_system
from core.storage.sqlite.reader import Reader
from core.storage.sqlite.sql import SqlStorage, database_path
from tests.core.contents import said
from tests.core.storage.samples import created, recorded, started


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("sqlite:////x/y.db", "/x/y.db"),
        ("sqlite+aiosqlite:////x/y.db", "/x/y.db"),
        ("/x/y z.db", "/x/y z.db"),
        ("sqlite:///y.db", f"{os.getcwd()}/y.db"),
        ("y.db", f"{os.getcwd()}/y.db"),
        ("sqlite:////x/que?stion.db", "/x/que?stion.db"),
        ("sqlite:////x/a?b=c/y.db", "/x/a?b=c/y.db"),
        ("sqlite:////x/sh#arp%20 %25+&é.db?", "/x/sh#arp%20 %25+&é.db?"),
        ("sqlite:////x/user:word@host.db", "/x/user:word@host.db"),
        ("/x/que?st=ion.db", "/x/que?st=ion.db"),
    ],
)
def test_a_url_or_a_path_names_the_file(given: str, path: str) -> None:
    assert database_path(given) == Path(path)


POSTGRES = "This needs a SQLite file; give a URL such as sqlite:///tasks.db"
NO_FILE = "The database must be a file, such as sqlite:///tasks.db; for memory use MemoryStorage"
NO_PATH = "A SQLite URL has a path only, such as sqlite:///tasks.db or sqlite:////var/tasks.db"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("postgresql://u:secret@h/d", POSTGRES),
        ("postgres://u:secret@h/d", POSTGRES),
        ("postgresql+asyncpg://u:secret@h/d", POSTGRES),
        ("mysql://u:secret@h/d", "mysql databases are not supported; give a SQLite URL such as sqlite:///tasks.db"),
        ("sqlite://", NO_FILE),
        ("sqlite:///:memory:", NO_FILE),
        (":memory:", NO_FILE),
        ("file:x.db?mode=memory", NO_FILE),
        ("", NO_FILE),
        ("sqlite:///x.db?mode=ro", NO_PATH),
        ("sqlite://host/x.db", NO_PATH),
        ("://", "The database URL cannot be read; write sqlite:///path/to/file.db"),
    ],
)
def test_any_other_database_is_refused_in_one_line(given: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SqlStorage(given)
    assert str(caught.value) == message


ODD_NAMES = (
    *("que?stion.db", "sh#arp.db", "per%20cent%.db", "a b&c=d;e.db", "é🙂\u2028.db", "[a]*.db", "'\".db"),
    "\udcff.db",  # no valid UTF-8
)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("prefix", ["sqlite:///", ""])
async def test_the_file_has_the_name_that_was_given(tmp_path: Path, name: str, prefix: str) -> None:
    """Its readers and writers, the check, a backup and a restore all mean that file, and make no other."""
    storage = SqlStorage(f"{prefix}{tmp_path}//{name}")
    await storage.open()
    await storage.append(append := created("t", 1))
    assert await storage.load("t") == (append.head, list(append.tasks))
    back_up(storage.path, tmp_path / f"copy of {name}")
    await storage.close()

    assert examine(storage.path).problems == ()
    restore(tmp_path / f"copy of {name}", storage.path)
    assert {file.partition(".db")[0] + ".db" for file in os.listdir(tmp_path)} == {name, f"copy of {name}"}


@pytest.mark.asyncio
async def test_a_path_with_two_slashes_at_its_beginning_is_a_path(tmp_path: Path) -> None:
    """POSIX leaves open what it means, and a URI takes what follows for a host."""
    storage = SqlStorage(f"sqlite:////{tmp_path}/t.db")
    assert str(storage.path).startswith("//")
    await storage.open()
    assert await storage.load("t") is None
    await storage.close()


@pytest.mark.asyncio
async def test_a_closed_database_is_opened_again_with_everything_in_it(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    append = created("t", 3)
    first = SqlStorage(str(path))
    await first.open()
    await first.append(append)
    await first.close()

    second = SqlStorage(str(path))
    await second.open()
    assert await second.load("t") == (append.head, list(append.tasks))
    await second.close()
    await first.open()
    assert await first.load("t") == (append.head, list(append.tasks))
    await first.close()


@pytest.mark.asyncio
async def test_nobody_else_may_read_the_files(storage: SqlStorage) -> None:
    await storage.append(created("t"))
    for name in os.listdir(storage.path.parent):
        assert stat.S_IMODE((storage.path.parent / name).stat().st_mode) == 0o600


OPEN_AND_TELL = """
import asyncio, sys
from core.storage.sqlite.sql import SqlStorage
from core.model.errors import DatabaseInUse
async def main():
    try:
        await SqlStorage(sys.argv[1]).open()
    except DatabaseInUse as error:
        print(error)
asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_a_second_process_is_refused_and_told_who_holds_the_file(storage: SqlStorage) -> None:
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OPEN_AND_TELL, str(storage.path), stdout=subprocess.PIPE
    )
    output, _ = await other.communicate()
    assert f"{storage.path} is in use by process {os.getpid()}" in output.decode()


@pytest.mark.asyncio
async def test_a_second_storage_in_the_same_process_is_refused(storage: SqlStorage) -> None:
    with pytest.raises(DatabaseInUse) as told:
        await SqlStorage(str(storage.path)).open()
    assert str(told.value) == f"The database {storage.path} is in use by process {os.getpid()}"
    await storage.append(created("t"))


def test_a_holder_that_gives_no_name_is_another_process(tmp_path: Path) -> None:
    """It holds the lock and has not written its number yet."""
    path = tmp_path / "tasks.db"
    with (tmp_path / "tasks.db.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DatabaseInUse) as caught:
            DatabaseLock(path).acquire()
        assert str(caught.value) == f"The database {path} is in use by another process"
        (tmp_path / "tasks.db.lock").write_bytes(b"\xff\n")
        with pytest.raises(DatabaseInUse, match="is in use by process"):
            DatabaseLock(path).acquire()


@pytest.mark.asyncio
async def test_another_name_of_the_same_file_is_refused(storage: SqlStorage, tmp_path: Path) -> None:
    """Symbolic links, to the file or to its directory, lead to one lock."""
    link = tmp_path / "link.db"
    link.symlink_to(storage.path)
    folder = tmp_path / "folder"
    folder.symlink_to(storage.path.parent, target_is_directory=True)
    for name in (link, folder / storage.path.name):
        with pytest.raises(DatabaseInUse, match=str(os.getpid())):
            await SqlStorage(str(name)).open()


@pytest.mark.asyncio
async def test_links_that_lead_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.db").symlink_to(tmp_path / "b.db")
    (tmp_path / "b.db").symlink_to(tmp_path / "a.db")
    with pytest.raises(StorageError, match="cannot be opened"):
        await SqlStorage(str(tmp_path / "a.db")).open()


@pytest.mark.asyncio
async def test_a_directory_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        await SqlStorage(str(tmp_path / "none" / "tasks.db")).open()


@pytest.mark.asyncio
async def test_a_failed_open_gives_the_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.write_bytes(b"no database" * 100)
    storage = SqlStorage(str(path))
    with pytest.raises(StorageError):
        await storage.open()
    path.unlink()
    await storage.open()
    await storage.close()


FORGETFUL = """
import asyncio, sys
from core.storage.sqlite.sql import SqlStorage
from tests.core.storage.samples import created
async def main():
    storage = SqlStorage(sys.argv[1])
    await storage.open()
    await storage.append(created("t"))
    print("stored", flush=True)
    return storage
kept = asyncio.run(main())
"""


def test_a_program_that_forgets_close_ends_all_the_same(tmp_path: Path) -> None:
    """Neither the writer's thread nor those of aiosqlite keep the interpreter alive."""
    path = str(tmp_path / "tasks.db")
    done = subprocess.run([sys.executable, "-c", FORGETFUL, path], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "stored\n"), done.stderr


FORKING = """
import asyncio, os, sys
from core.storage.sqlite.sql import SqlStorage
async def main():
    storage = SqlStorage(sys.argv[1])
    await storage.open()
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.close(1)
        os.write(tell, b"x")  # what a fork does in the child is done
        os.read(int(sys.argv[2]), 1)  # outlives its parent, until the test lets it go
        os._exit(0)
    os.read(ready, 1)
    print("forked", flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_a_forked_child_that_outlives_its_parent_does_not_hold_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "tasks.db")
    read, write = os.pipe()
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKING, path, str(read), pass_fds=[read], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert await parent.stdout.readline() == b"forked\n"
    await parent.wait()

    storage = SqlStorage(path)
    await storage.open()
    await storage.close()
    os.close(write)
    os.close(read)


def test_a_lock_that_was_given_back_is_not_kept(tmp_path: Path) -> None:
    lock = DatabaseLock(tmp_path / "tasks.db")
    kept = weakref.ref(lock)
    lock.acquire()
    lock.release()

    del lock

    assert kept() is None


APPENDING = """
import asyncio, sys
from core.storage.sqlite.sql import SqlStorage
from tests.core.storage.samples import created, started
async def one(storage, name):
    append = created(name, 3)
    await storage.append(append)
    head = append.head
    for task in append.tasks:
        append = started(head, task)
        await storage.append(append)
        head = append.head
        sys.stdout.write(f"{name} {head.version}\\n")
        sys.stdout.flush()
async def main():
    storage = SqlStorage(sys.argv[1])
    await storage.open()
    while True:
        for i in range(100000):
            await asyncio.gather(*[one(storage, f"t{i}-{j}") for j in range(8)])
asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = str(tmp_path / "tasks.db")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", APPENDING, path, stdout=subprocess.PIPE)
    assert process.stdout is not None
    acknowledged: dict[str, int] = {}
    for _ in range(500):
        name, version = (await process.stdout.readline()).split()
        acknowledged[name.decode()] = int(version)
    process.send_signal(signal.SIGKILL)
    for line in (await process.stdout.read()).decode().splitlines(keepends=True):
        if line.endswith("\n"):
            name_text, version_text = line.split()
            acknowledged[name_text] = int(version_text)
    await process.wait()

    storage = SqlStorage(path)
    await storage.open()
    for tree_id, least in acknowledged.items():
        loaded = await storage.load(tree_id)
        assert loaded is not None and loaded[0].version >= least
        assert [r.seq for r in await storage.events(EventQuery(tree_id=tree_id))] == list(
            range(1, loaded[0].version + 1)
        )
        assert sum(task.attempt for task in loaded[1]) == loaded[0].version - 1
    await storage.close()


CORRUPTIONS = [
    ("UPDATE tasks SET state = CAST(replace(state, 'is_running', 'is_rumning') AS BLOB) WHERE id = 't'", "task t"),
    ("UPDATE tasks SET spec = CAST(replace(spec, 'work', 'word') AS BLOB) WHERE id = 't'", "task t"),
    ("UPDATE tasks SET spec = 5 WHERE id = 't'", "task t"),
    ("UPDATE trees SET body = CAST(replace(body, '1000', '1001') AS BLOB)", "tree t"),
    ("UPDATE trees SET bulk = x'7b22'", "tree t"),
    ("UPDATE events SET body = substr(body, 2)", "event 1 of tree t"),
    ("UPDATE events SET body = CAST(replace(body, '\"size\":1', '\"size\":2') AS BLOB)", "event 1 of tree t"),
]


@pytest.mark.parametrize(("sql", "what"), CORRUPTIONS)
@pytest.mark.asyncio
async def test_a_corrupt_row_is_never_served(storage: SqlStorage, sql: str, what: str) -> None:
    first = created("t", metadata={"a": 1})
    await storage.append(first)
    await storage.append(started(first.head, first.tasks[0]))
    foreign = sqlite3.connect(storage.path, isolation_level=None)
    before = foreign.total_changes
    foreign.execute(sql)
    assert foreign.total_changes > before
    foreign.close()

    async def read_everything() -> None:
        if what.startswith("event"):
            await storage.events(EventQuery(tree_id="t"))
        else:
            await storage.load("t")

    with pytest.raises(StorageError, match=f"{what} is corrupt"):
        await read_everything()
    if what == "task t":
        with pytest.raises(StorageError, match="corrupt"):
            await storage.task("t")
    if what == "tree t" and "bulk" not in sql:
        with pytest.raises(StorageError, match="corrupt"):
            await storage.head("t")


def corrupt(storage: SqlStorage, sql: str) -> None:
    """Change the file behind the storage's back."""
    foreign = sqlite3.connect(storage.path, isolation_level=None)
    before = foreign.total_changes
    foreign.execute(sql)
    assert foreign.total_changes > before
    foreign.close()


@pytest.mark.asyncio
async def test_a_corrupt_row_is_left_out_of_lists_and_named_in_the_log(
    storage: SqlStorage, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abc":
        await storage.append(created(name))
    corrupt(storage, "UPDATE tasks SET spec = x'7b22' WHERE id = 'b'")
    corrupt(storage, "UPDATE trees SET body = x'7b22' WHERE id = 'b'")

    assert [task.id for task in await storage.tasks(TaskQuery(owner=None))] == ["c", "a"]
    assert [head.id for head in (await storage.trees(TreeQuery(owner=None))).heads] == ["c", "a"]
    assert caplog.messages == [
        "The stored task b is corrupt; it is left out",
        "The stored tree b is corrupt; it is left out",
    ]


@pytest.mark.asyncio
async def test_a_text_that_is_none_any_more_costs_its_row_and_no_other(storage: SqlStorage) -> None:
    """A flipped bit may leave bytes that are no UTF-8."""
    for name in "abc":
        await storage.append(created(name))
    corrupt(storage, "UPDATE tasks SET owner = CAST(x'ff' AS TEXT) WHERE id = 'b'")

    assert [task.id for task in await storage.tasks(TaskQuery(owner=None))] == ["c", "a"]
    assert examine(storage.path).problems == ("The stored task b is corrupt",)


@pytest.mark.asyncio
async def test_a_corrupt_document_is_never_served(storage: SqlStorage) -> None:
    await storage.put_documents(*(Document(kind="note", id=each, body=b"{}") for each in "abc"))
    corrupt(storage, "UPDATE documents SET body = x'7b22' WHERE id = 'b'")

    with pytest.raises(StorageError, match="note b is corrupt"):
        await storage.document("note", "b")
    assert [each.id for each in await storage.documents(DocumentQuery(kind="note"))] == ["a", "c"]


@pytest.mark.parametrize(
    "change",
    ["kind = 'letter'", "id = 'other'", "owner = 'eve'", "tree_id = 't'", "at = 2.0", "body = '{}'", "crc = 1"],
)
@pytest.mark.asyncio
async def test_a_document_is_served_only_as_it_was_put(storage: SqlStorage, change: str) -> None:
    """Its checksum is of all its columns, for it is found and owned by them."""
    await storage.put_documents(Document(kind="note", id="n", owner="ann", at=1.0, body=b"{}"))
    corrupt(storage, f"UPDATE documents SET {change}")

    assert [
        *await storage.documents(DocumentQuery(kind="note")),
        *await storage.documents(DocumentQuery(kind="letter")),
    ] == []


async def walk(storage: SqlStorage, *, limit: int, total: int) -> list[list[str]]:
    """The ids of all trees, page by page."""
    pages: list[list[str]] = []
    before = None
    while True:
        page = await storage.trees(TreeQuery(owner=None, limit=limit, before=before))
        assert page.total == total
        pages.append([head.id for head in page.heads])
        if not page.has_more:
            return pages
        before = (page.heads[-1].updated_at, page.heads[-1].id)


@pytest.mark.asyncio
async def test_pages_of_trees_end_early_where_they_are_large(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has what it takes to reach the limit, at least one, and together they have all."""
    for name in "abcde":
        await storage.append(created(name, context_id="x" * 1_000))

    assert await walk(storage, limit=3, total=5) == [["e", "d", "c"], ["b", "a"]]
    monkeypatch.setattr(relational, "LIST_BYTES", 1_500)
    assert await walk(storage, limit=3, total=5) == [["e", "d"], ["c", "b"], ["a"]]
    monkeypatch.setattr(relational, "LIST_BYTES", 1)
    assert await walk(storage, limit=3, total=5) == [["e"], ["d"], ["c"], ["b"], ["a"]]
    corrupt(storage, "UPDATE trees SET body = x'7b22'")
    assert await walk(storage, limit=3, total=5) == [[]], "what is left out has no end to go on from"


@pytest.mark.asyncio
async def test_a_list_of_tasks_that_is_too_large_is_refused(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages are found by their number: one that ended early would hide what comes after."""
    for name in "abc":
        await storage.append(created(name))
    monkeypatch.setattr(relational, "LIST_BYTES", 1)

    with pytest.raises(AnswerTooLarge, match="would exceed 1 bytes of JSON; ask for fewer tasks"):
        await storage.tasks(TaskQuery(owner=None, limit=2))
    assert [task.id for task in await storage.tasks(TaskQuery(owner=None, limit=1))] == ["c"]


@pytest.mark.asyncio
async def test_pages_of_a_log_end_early_where_they_are_large(storage: SqlStorage) -> None:
    """Found later: one answer, or one follower of a log, could take gigabytes."""
    first = created("t")
    await storage.append(first)
    large = MessageReceived(task_id="t", message=said("x" * 1_000))
    events = tuple(recorded(first.head, seq, large) for seq in range(2, 7))
    await storage.append(Append(head=replace(first.head, version=6), events=events, tasks=()))

    async def seqs(after: int, max_bytes: int | None) -> list[int]:
        return [each.seq for each in await storage.events(EventQuery(tree_id="t", after=after, max_bytes=max_bytes))]

    assert await seqs(0, None) == await seqs(0, 10_000) == [1, 2, 3, 4, 5, 6]
    assert await seqs(1, 1_500) == [2], "two of them have more"
    assert await seqs(1, 3_000) == [2, 3]
    assert await seqs(3, 1) == [4]
    assert await seqs(6, 1) == []


@pytest.mark.asyncio
async def test_large_logs_are_compacted_a_piece_at_a_time(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many bytes as that are in memory, however large the parts are."""
    heads = []
    for name in "abc":
        first = created(name)
        large = MessageReceived(task_id=name, message=said("x" * 1_000))
        events = tuple(recorded(first.head, seq, large) for seq in range(2, 7))
        head = replace(first.head, version=6, status=TaskStatus.COMPLETED, is_live=False)
        await storage.append(first)
        await storage.append(Append(head=head, events=events, tasks=()))
        heads.append(head)
    monkeypatch.setattr(relational, "LOG_BYTES", 2_500)

    await storage.compact([LogPart(head.id, 6, 0, 5) for head in heads])

    assert [await storage.compacted(name) for name in "abc"] == [5, 5, 5]
    for name in "abc":
        assert [each.seq for each in await storage.events(EventQuery(tree_id=name))] == [2, 3, 4, 5, 6], "messages stay"
    assert examine(storage.path).problems == ()


@pytest.mark.asyncio
async def test_pages_of_trees_go_on_behind_corrupt_rows(storage: SqlStorage) -> None:
    """Also behind a page that has nothing else in it."""
    for name in "abcdefgh":
        await storage.append(created(name))
    corrupt(storage, "UPDATE trees SET body = x'7b22' WHERE id IN ('c', 'd', 'e', 'f', 'h')")

    seen = [tree_id for page in await walk(storage, limit=1, total=8) for tree_id in page]

    assert seen == ["g", "b", "a"]


def test_a_row_that_does_not_fit_the_types_is_corrupt_too() -> None:
    """Its checksum is right, but what it says cannot be."""
    body = b'{"seq":"x"}'
    crc = codec.crc32(body)
    with pytest.raises(StorageError, match="event 1 of tree t is corrupt"):
        codec.read_event(("t", 1, body, crc))
    with pytest.raises(StorageError, match="tree t is corrupt"):
        codec.read_head(("t", "ann", body, crc, body, crc))
    with pytest.raises(StorageError, match="task t is corrupt"):
        codec.read_task(("t", "ann", body, crc, body, crc))


@pytest.mark.parametrize("which", range(6))
def test_a_row_is_served_only_under_its_own_key_and_checksums(which: int) -> None:
    head = created("t", owner="ann").head
    task = created("t", owner="ann").tasks[0]
    event = created("t").events[0]
    body = msgspec.json.encode(event)
    rows: list[tuple[Callable[[Sequence[Any]], object], object, list[Any]]] = [
        (codec.read_head, head, ["t", "ann", *codec.head_row(head)[-5:-1]]),
        (codec.read_task, task, ["t", "ann", *codec.task_row(task)[-5:-1]]),
        (codec.read_event, event, ["t", 1, body, codec.crc32(body)]),
    ]
    for read, value, row in rows:
        assert read(row) == value
        if which < len(row):
            row[which] = {str: "x", int: -1, bytes: b"[]"}[type(row[which])]
            with pytest.raises(StorageError, match="corrupt"):
                read(row)


def test_a_row_that_was_found_by_a_tenant_is_served_only_if_its_owner_is_of_it() -> None:
    """The column is no part of the row's checksum, so it is held against the owner."""
    owner = owner_of("t", "ann")
    head, task = created("t", owner=owner).head, created("t", owner=owner).tasks[0]
    rows: list[tuple[Any, object, list[Any]]] = [
        (codec.read_bare_head, head, ["t", owner, *codec.head_row(head)[-5:-3]]),
        (codec.read_task, task, ["t", owner, *codec.task_row(task)[-5:-1]]),
    ]
    for read, value, row in rows:
        assert read(row, "t") == value
        with pytest.raises(StorageError, match="corrupt"):
            read(row, "u")


def test_checksums_are_those_that_files_have_already() -> None:
    """A program that made them in another way would find every row of an old file corrupt."""
    document = Document(kind="note", id="n", owner="ann", tree_id="t", at=1.0, body=b"{}")
    assert codec.document_row(document)[-1] == crc32(b"{}", crc32(b'["note","n","ann","t",1.0]'))
    assert retire.compaction_row(retire.Compaction("t", 5, 2))[-1] == crc32(b'["t",5,2,0]')
    assert retire.compaction_row(retire.Compaction("t", 5, 2, is_dropped=True))[-1] == crc32(b'["t",5,2,1]')
    assert codec.head_bulk_row(TreeHead(id="t", created_at=1.0, updated_at=1.0, metadata={"a": 1})) == (
        "t",
        b'{"metadata":{"a":1}}',
        crc32(b'{"metadata":{"a":1}}'),
    )


def test_the_parts_of_a_row_together_are_the_whole_value() -> None:
    """A field that is added to Task or TreeHead is stored without a change here."""
    task = codec.task_row(Task(id="t", name="n", created_at=1.0))
    head = codec.head_row(TreeHead(id="t", created_at=1.0, updated_at=1.0))
    assert msgspec.json.decode(task[9]) == {"id": "t", "name": "n", "created_at": 1.0}
    assert task[11] == b"{}"
    assert msgspec.json.decode(head[10]) == {"id": "t", "created_at": 1.0, "updated_at": 1.0}
    assert head[12] == b"{}"


@pytest.mark.asyncio
async def test_reads_use_the_indexes(storage: SqlStorage) -> None:
    foreign = sqlite3.connect(storage.path)
    frozen = [
        (queries.tree_tasks.sql, 1, "tasks_by_tree"),
        (queries.children.sql, 1, "tasks_by_parent"),
        (queries.live_trees.sql, 0, "trees_live"),
        (*_plain(queries.task_list(TaskQuery(owner="ann"))), "tasks_roots"),
        (*_plain(queries.tree_list(TreeQuery(owner="ann", before=(1.0, "a")))), "trees_by_change"),
        (*_plain(EVENT_QUERIES.page(EventQuery(tree_id="t", limit=9))), "PRIMARY KEY"),
    ]
    for sql, count, index in frozen:
        plan = " ".join(row[3] for row in foreign.execute(f"EXPLAIN QUERY PLAN {sql}", [0] * count))
        # At most rows of equal position are sorted, never the whole answer.
        assert index in plan and "TEMP B-TREE FOR ORDER BY" not in plan, (sql, plan)
    foreign.close()


@pytest.mark.asyncio
async def test_a_row_that_does_not_exist_is_not_told_from_a_foreign_one_by_being_quicker(storage: SqlStorage) -> None:
    """Counted in steps of SQLite's machine; the time is measured by benchmarks/access.py."""
    for name in "abc":
        await storage.append(created(name, 2, owner="ann"))
    foreign = sqlite3.connect(storage.path)
    foreign.execute("SELECT count(*) FROM trees").fetchall()  # the schema is read once

    def steps(query: Bound) -> int:
        count = 0

        def step() -> None:
            nonlocal count
            count += 1

        foreign.set_progress_handler(step, 1)
        assert foreign.execute(*query).fetchall() == []
        return count

    for one in (queries.one_head, queries.one_task):
        assert steps(one("b", "eve", None)) <= steps(one("nosuch", "eve", None))
        assert steps(one("b", None, "t")) <= steps(one("nosuch", None, "t"))
    foreign.close()


def _plain(query: Bound) -> tuple[str, int]:
    return query[0], len(query[1])


@pytest.mark.asyncio
async def test_a_cancelled_read_leaves_its_connection_usable(storage: SqlStorage) -> None:
    first = created("t", 3000)
    await storage.append(first)
    for turns in range(12):
        reading = asyncio.ensure_future(storage.load("t"))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])

    loaded = await asyncio.gather(*[storage.load("t") for _ in range(6)])
    assert all(found is not None and len(found[1]) == 3000 for found in loaded)


@pytest.mark.asyncio
async def test_no_read_holds_the_log_back(storage: SqlStorage) -> None:
    """After reads of every kind a checkpoint can empty the log, so no transaction is left open."""
    await storage.append(created("t", 50))
    await storage.load("t")
    await storage.load("none")
    await storage.trees(TreeQuery(owner=None))
    await storage.events(EventQuery(tree_id="t", limit=1))
    await storage.tasks(TaskQuery(owner=None, limit=1))

    foreign = sqlite3.connect(storage.path)
    assert foreign.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    foreign.close()


@pytest.mark.asyncio
async def test_reading_a_closed_storage_is_an_error(tmp_path: Path) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    with pytest.raises(StorageUnavailable, match="closed"):
        await storage.head("t")
    await storage.open()
    reading = asyncio.ensure_future(storage.head("t"))
    await storage.close()
    await asyncio.wait([reading])
    with pytest.raises(StorageError, match="closed"):
        await storage.head("t")


def test_the_file_system_of_a_directory_is_that_of_its_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\nhost:/y {tmp_path}/sub tmpfs rw 0 0\n")
    assert file_system(tmp_path / "data", mounts) == "nfs4"
    assert file_system(tmp_path / "sub", mounts) == "tmpfs"
    assert file_system(tmp_path.parent, mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "none") == ""
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path}/a\\040b\\040c nfs4 rw 0 0\n")
    assert file_system(tmp_path / "a b c", mounts) == "nfs4"
    assert file_system(tmp_path / "a b", mounts) == "ext4"
    mounts.write_text(f"host:/x {tmp_path}/X nfs4 rw 0 0\nhost:/y {tmp_path}/X/ tmpfs rw 0 0\n")
    assert file_system(tmp_path / "X", mounts) == "tmpfs", "the later one hides the other"
    assert file_system(tmp_path, mounts) == ""
    mounts.write_bytes(b"host:/x /\xff nfs4 rw 0 0\n/dev/a / ext4 rw 0 0\n")
    assert file_system(tmp_path, mounts) == "ext4"


@pytest.mark.asyncio
async def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.storage.sqlite.lock.file_system", lambda directory: "nfs4")
    with pytest.raises(StorageError, match="network file system"):
        await SqlStorage(str(tmp_path / "tasks.db")).open()


@pytest.mark.asyncio
async def test_a_storage_that_was_never_opened_is_closed(tmp_path: Path) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.close()
    for refused in (storage.append(created("t")), storage.put_draft(Task(id="d", name="d", created_at=1.0))):
        with pytest.raises(StorageUnavailable, match="closed"):
            await refused
    assert os.listdir(tmp_path) == []


@pytest.mark.asyncio
async def test_a_folder_in_place_of_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be opened: Is a directory"):
        await SqlStorage(str(tmp_path)).open()


@pytest.mark.asyncio
async def test_an_open_that_fails_at_the_readers_leaves_the_file_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    with monkeypatch.context() as patch:
        patch.setattr("aiosqlite.connect", _cannot_open)
        with pytest.raises(StorageError, match=r"tasks\.db cannot be opened: unable to open"):
            await storage.open()
    other = SqlStorage(str(tmp_path / "tasks.db"))
    await other.open()
    await other.append(created("t"))
    await other.close()


def _cannot_open(*_: object, **__: object) -> object:
    raise sqlite3.OperationalError("unable to open")


@pytest.mark.asyncio
async def test_a_close_in_the_middle_of_reads_answers_every_one_of_them(tmp_path: Path) -> None:
    """Each gets its rows, or is told that the database is closed; none waits for ever."""
    told = 0
    for turns in range(12):
        storage = SqlStorage(str(tmp_path / "tasks.db"))
        await storage.open()
        if turns == 0:
            await storage.append(created("t", 1500))
        readings = [asyncio.ensure_future(storage.load("t")) for _ in range(6)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await storage.close()
        for found in await asyncio.wait_for(asyncio.gather(*readings, return_exceptions=True), 20):
            if isinstance(found, StorageUnavailable):
                assert str(found) == "The database is closed"
                told += 1
            else:
                assert not isinstance(found, BaseException) and found is not None and len(found[1]) == 1500
    assert told


@pytest.mark.asyncio
async def test_a_tree_is_read_up_to_so_many_bytes_where_that_is_said(storage: SqlStorage) -> None:
    await storage.append(created("t", 1_200))
    loaded = await storage.load("t")
    assert loaded is not None and [task.position for task in loaded[1]] == list(range(1_200))
    assert await storage.load("t", most=10_000_000) == loaded
    with pytest.raises(AnswerTooLarge, match="one by one"):
        await storage.load("t", most=100_000)


@pytest.mark.asyncio
async def test_rows_of_a_tree_are_fetched_by_the_megabyte(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    append = created("t", 10)
    large = tuple(replace(task, inputs={"x": "y" * 1_000}) for task in append.tasks)
    await storage.append(replace(append, tasks=large))
    fetched: list[int] = []
    next_rows = reader_module._next_rows

    def counted(cursor: sqlite3.Cursor) -> Any:
        rows = next_rows(cursor)
        fetched.append(len(rows.rows))
        return rows

    monkeypatch.setattr(reader_module, "_next_rows", counted)
    monkeypatch.setattr(reader_module, "LOG_BYTES", 3_000)
    loaded = await storage.load("t")
    assert loaded is not None and len(loaded[1]) == 10
    assert fetched == [3, 3, 3, 1, 0]


@pytest.mark.asyncio
async def test_lists_count_so_far_and_no_further(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relational, "COUNTED", 3)
    for n in range(5):
        await storage.append(created(f"t{n}", owner="ann"))
    page = await storage.trees(TreeQuery(owner="ann", limit=2))
    assert (page.total, page.has_more) == (3, True)
    query = TaskQuery(owner="ann", root_only=False)
    assert [await storage.count(query, most) for most in (2, 5, 9)] == [2, 5, 5]


@pytest.mark.asyncio
async def test_an_error_of_what_decodes_rows_is_not_blamed_on_the_database(storage: SqlStorage) -> None:
    reader = Reader(storage.path)
    await reader.open()
    with pytest.raises(ValueError, match="invalid literal"):
        await reader.first_and_rest(("SELECT 1", ()), ("SELECT 'x'", ()), lambda row: int(row[0]))
    assert await reader.first_and_rest(("SELECT 1", ()), ("SELECT 2", ()), lambda row: row[0]) == ((1,), [2])
    await reader.close()


def test_a_lock_may_be_given_back_twice(tmp_path: Path) -> None:
    lock, other = DatabaseLock(tmp_path / "tasks.db"), DatabaseLock(tmp_path / "tasks.db")
    lock.release()
    lock.acquire()
    lock.release()
    assert (tmp_path / "tasks.db.lock").read_text() == "", "it names nobody"
    other.acquire()
    lock.release()
    with pytest.raises(DatabaseInUse):
        lock.acquire()
    other.release()


@pytest.mark.asyncio
async def test_an_opening_that_is_given_up_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a start: the file must be free for the next one."""
    path, hangs = tmp_path / "tasks.db", asyncio.Event()

    async def never(self: Reader) -> None:
        hangs.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "open", never)
        opening = asyncio.create_task(SqlStorage(str(path)).open())
        await hangs.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.close()


@pytest.mark.asyncio
async def test_children_that_are_too_large_together_are_refused(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.append(created("t", 50))
    monkeypatch.setattr(relational, "LIST_BYTES", 1_000)
    with pytest.raises(AnswerTooLarge):
        await storage.children("t")


@pytest.mark.asyncio
async def test_a_list_that_fails_for_another_reason_is_no_list_that_took_too_long(storage: SqlStorage) -> None:
    with pytest.raises(StorageError, match="SQLITE_ERROR"):
        await storage._reading().list_page(("SELECT nothing FROM nowhere", ()), 10)


@pytest.mark.asyncio
async def test_a_large_page_of_a_log_is_decoded_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SqlStorage(str(tmp_path / "t.db"))
    await storage.open()
    first = created("t")
    await storage.append(first)
    message = said("y" * relational.LARGE)
    event = recorded(first.head, 2, MessageReceived(task_id="t", message=message))
    await storage.append(Append(head=replace(first.head, version=2), events=(event,), tasks=()))
    threads: list[int] = []
    real = codec.read_event

    def read_event(row: Any) -> Any:
        threads.append(threading.get_ident())
        return real(row)

    monkeypatch.setattr(codec, "read_event", read_event)
    assert await storage.events(EventQuery(tree_id="t", after=1, max_bytes=LOG_BYTES)) == [event]
    assert threading.get_ident() not in threads
    threads.clear()
    assert (await storage.events(EventQuery(tree_id="t", until=1, max_bytes=LOG_BYTES)))[0].seq == 1
    assert threads == [threading.get_ident()]
    await storage.close()
