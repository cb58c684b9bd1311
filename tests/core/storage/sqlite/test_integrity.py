"""What an examination of a database file finds (`core.storage.sqlite.integrity`)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.model.errors import StorageError
from core.model.task import Task, TaskStatus
from core.storage.base import Document, TreeQuery
from core.storage.sqlite import integrity
from core.storage.sqlite.commit_marker import CommitMarker, marker_path, noted_commit
from core.storage.sqlite.integrity import MAX_PROBLEMS, Verdict, examine, require_commits, require_whole
from core.storage.sqlite.sql import SqlStorage
from core.storage.tables import REVISIONS
from tests.core.storage.samples import created, harm, started

WHOLE = Verdict(problems=(), is_complete=True, schema=REVISIONS[-1])


@pytest_asyncio.fixture
async def path(tmp_path: Path) -> Path:
    """A closed database with one tree of three tasks and two events, and one document."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    tree = created("t", 3, owner="ann")
    await storage.append(tree)
    await storage.append(started(tree.head, tree.tasks[1]))
    await storage.put_documents(Document(kind="note", id="n", owner="ann", tree_id="t", at=1.0, body=b"1"))
    await storage.close()
    return storage.path


def test_a_whole_database_has_no_problems(path: Path) -> None:
    assert examine(path) == WHOLE
    assert examine(path, seconds=60.0) == WHOLE
    assert require_whole(path)


@pytest.mark.parametrize(
    ("sql", "problems"),
    [
        ("UPDATE trees SET owner = 'eve'", ["The stored tree t is corrupt"]),
        ("UPDATE trees SET version = 3", ["the version of t ann in trees is not what the row says"]),
        ("UPDATE trees SET status = 'failed'", ["the status of t ann in trees is not what the row says"]),
        ("UPDATE trees SET run = 7", ["the run of t ann in trees is not what the row says"]),
        ("UPDATE trees SET is_live = 0", ["the is_live of t ann in trees is not what the row says"]),
        ("UPDATE trees SET origin = 'x'", ["the origin of t ann in trees is not what the row says"]),
        ("UPDATE trees SET context_id = 'x'", ["the context_id of t ann in trees is not what the row says"]),
        ("UPDATE trees SET created_at = 1", ["the created_at of t ann in trees is not what the row says"]),
        ("UPDATE trees SET updated_at = 1", ["the updated_at of t ann in trees is not what the row says"]),
        ("UPDATE tasks SET owner = 'eve' WHERE position = 2", ["The stored task t.2 is corrupt"]),
        ("UPDATE tasks SET name = 'x' WHERE position = 2", ["the name of t.2 ann in tasks is not what the row says"]),
        ("UPDATE tasks SET user_id = 'x' WHERE position = 2", ["the user_id of t.2 ann in tasks is"]),
        ("UPDATE tasks SET status = 'failed' WHERE position = 2", ["the status of t.2 ann in tasks is"]),
        ("UPDATE tasks SET position = 9 WHERE position = 2", ["the position of t.2 ann in tasks is"]),
        ("UPDATE tasks SET parent_id = 't.1' WHERE position = 2", ["the parent_id of t.2 ann in tasks is"]),
        ("UPDATE tasks SET created_at = 1 WHERE position = 2", ["the created_at of t.2 ann in tasks is"]),
        ("UPDATE tasks SET tree_id = '' WHERE position = 2", ["the tree_id of t.2", "the tree t has 2 tasks of 3"]),
        ("UPDATE events SET body = 'x' WHERE seq = 2", ["The stored event 2 of tree t is corrupt"]),
        ("UPDATE events SET at = 1 WHERE seq = 2", ["the at of t 2 in events is not what the row says"]),
        ("UPDATE events SET kind = 'x' WHERE seq = 2", ["the kind of t 2 in events is not what the row says"]),
        ("UPDATE events SET task_id = 'x' WHERE seq = 2", ["the task_id of t 2 in events is"]),
        ("UPDATE documents SET body = 'x'", ["The stored note n is corrupt"]),
        ("DELETE FROM events WHERE seq = 1", ["the log of tree t has gaps"]),
        ("DELETE FROM tasks WHERE position = 2", ["the tree t has 2 tasks of 3"]),
        ("UPDATE trees SET body = 'x'", ["The stored tree t is corrupt"]),
        ("DELETE FROM trees", ["3 rows of tasks belong to no tree", "2 rows of events belong to no tree"]),
        ("DROP TABLE documents", []),
        ("DROP TABLE compactions", []),
        ("DROP TABLE trees", []),  # what cannot be compared is not
    ],
)
def test_every_damage_is_named_and_nothing_else(path: Path, sql: str, problems: list[str]) -> None:
    harm(path, sql)
    found = [text for text in examine(path).problems if "gaps" not in text or "DELETE FROM events" in sql]
    assert len(found) == len(problems), found
    assert all(text.startswith(problem) for text, problem in zip(found, problems, strict=True)), found


@pytest.mark.asyncio
async def test_whatever_changes_in_a_running_tree_its_columns_follow(tmp_path: Path) -> None:
    """Most appends write the version alone; each other column that changes must be written with it."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    tree = created("t", 2)
    await storage.append(tree)
    head = tree.head
    for change in ({}, {"updated_at": 2000.0}, {"status": TaskStatus.INPUT_REQUIRED}, {"run": 2}, {"is_live": False}):
        append = started(head, tree.tasks[0])
        head = replace(append.head, **{"status": head.status, "is_live": True, **change})
        await storage.append(replace(append, head=head))
        assert examine(storage.path) == WHOLE, change
    assert (await storage.trees(TreeQuery(owner=None, updated_since=2000.0))).heads == (head,)
    await storage.close()


@pytest.mark.asyncio
async def test_a_draft_belongs_to_no_tree_and_is_no_problem(path: Path) -> None:
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.put_draft(Task(id="draft", owner="ann", name="d", created_at=1.0))
    await storage.close()
    assert examine(path) == WHOLE


@pytest.mark.asyncio
async def test_damage_behind_a_corrupt_tree_is_told_as_well(tmp_path: Path) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    for name in "abc":
        await storage.append(created(name, 2))
    await storage.close()
    harm(storage.path, "UPDATE trees SET body = 'x' WHERE id = 'a'")
    harm(storage.path, "UPDATE trees SET run = 7, origin = 'x' WHERE id = 'c'")
    harm(storage.path, "DELETE FROM tasks WHERE id IN ('b.1', 'c.1')")
    assert examine(storage.path).problems == (
        "The stored tree a is corrupt",
        "the run, origin of c anonymous in trees is not what the row says",
        "the tree b has 1 tasks of 2",
        "the tree c has 1 tasks of 2",
    )


@pytest.mark.asyncio
async def test_no_more_than_twenty_problems_are_told(tmp_path: Path) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    for n in range(MAX_PROBLEMS + 5):
        await storage.append(created(f"t{n}"))
    await storage.close()
    harm(storage.path, "UPDATE trees SET origin = 'x'")
    verdict = examine(storage.path)
    assert (len(verdict.problems), verdict.is_complete, verdict.schema) == (20, True, REVISIONS[-1])


def test_damaged_pages_are_told_and_rows_are_not_asked_for(path: Path) -> None:
    """Its header counts free pages that are nowhere."""
    harm(path, "UPDATE trees SET run = 7")
    image = bytearray(path.read_bytes())
    image[32:40] = bytes([0, 0, 0, 0, 0, 0, 0, 5])
    path.write_bytes(image)
    (problem,) = examine(path).problems
    assert "freelist: size is 0 but should be 5" in problem.lower() and "\n" not in problem


def test_a_file_that_is_no_database_is_told(path: Path) -> None:
    path.write_bytes(b"nothing of use" * 1000)
    marker_path(path).unlink()
    assert examine(path) == Verdict(problems=("the file cannot be read: file is not a database",), is_complete=True)


def test_an_absent_file_is_told_and_not_made(tmp_path: Path) -> None:
    verdict = examine(tmp_path / "no ? such.db")
    assert verdict.problems == ("the file cannot be read: unable to open database file",)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_and_a_foreign_database_have_no_schema(tmp_path: Path) -> None:
    empty, foreign, unset = tmp_path / "empty.db", tmp_path / "foreign.db", tmp_path / "unset.db"
    empty.touch()
    harm(foreign, "CREATE TABLE theirs (x)")
    harm(unset, "CREATE TABLE alembic_version (version_num)")
    for path in (empty, foreign, unset):
        assert examine(path) == Verdict(problems=(), is_complete=True, schema=None)


@pytest.mark.parametrize("lost", [(3,), (0, "t", 1_000), (0, "no such tree", 1)])
def test_commits_that_are_gone_are_told(path: Path, lost: tuple[int, str, int]) -> None:
    noted = noted_commit(path)
    assert noted is not None and examine(path).problems == ()
    later, *tree = lost
    marker = CommitMarker(path)
    marker.note(noted.number + later, *tree)
    marker.close()
    (problem,) = examine(path).problems
    assert problem.startswith("its last commits are missing")
    assert "remove tasks.db.commits" in problem


def test_a_file_with_problems_is_refused_with_the_first_of_them(path: Path) -> None:
    harm(path, "UPDATE trees SET run = 7")
    with pytest.raises(StorageError) as told:
        require_whole(path)
    assert str(told.value) == (
        f"The database {path} is damaged: the run of t ann in trees is not what the row says; run `a2a-server db "
        "check`, restore a backup with `a2a-server db restore`"
    )
    harm(path, "UPDATE documents SET body = 'x'")
    with pytest.raises(StorageError, match=r"what the row says \(and 1 more\); run `a2a-server db check`"):
        require_whole(path)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SQLite looks at the clock at every step."""
    monkeypatch.setattr(integrity, "STEPS", 1)
    yield


@pytest.mark.usefixtures("hasty")
def test_without_time_the_check_ends_without_a_verdict(path: Path) -> None:
    verdict = examine(path, seconds=0.0)
    assert (verdict.problems, verdict.is_complete) == ((), False)
    assert not require_whole(path, seconds=0.0)


@pytest.mark.usefixtures("hasty")
def test_with_time_enough_everything_is_looked_at(path: Path) -> None:
    harm(path, "UPDATE trees SET run = 7")
    verdict = examine(path, seconds=60.0)
    assert (len(verdict.problems), verdict.is_complete) == (1, True)


@pytest.mark.asyncio
@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("why", [("CHECK_SECONDS", 0.0), ("SMALL_FILE", 0)], ids=["no time", "a large file"])
@pytest.mark.parametrize(
    "damage", [None, "UPDATE tasks SET owner = 'eve' WHERE position = 2"], ids=["whole", "damaged"]
)
async def test_what_a_start_does_not_check_is_checked_beside_the_work(
    path: Path, monkeypatch: pytest.MonkeyPatch, damage: str | None, why: tuple[str, float]
) -> None:
    """Found from outside: a start read the whole file: 6 s for 142 MB.

    A start takes the same time however large the file is; what is found later makes the server unready.
    """
    monkeypatch.setattr(f"core.storage.sqlite.sql.{why[0]}", why[1])
    if damage is not None:
        harm(path, damage)
    storage = SqlStorage(str(path))
    await storage.open()
    await asyncio.to_thread(storage.inspection.ended)
    found = storage.refusal()
    await storage.close()
    assert (found is None) is (damage is None)
    assert found is None or found.startswith("The database tasks.db is damaged: ")


@pytest.mark.asyncio
async def test_a_large_file_that_lost_its_last_commits_is_refused_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit would be noted, and nobody could tell any more."""
    monkeypatch.setattr("core.storage.sqlite.sql.SMALL_FILE", 0)
    noted = noted_commit(path)
    assert noted is not None
    marker = CommitMarker(path)
    marker.note(noted.number, "t", 99)
    marker.close()
    with pytest.raises(StorageError, match="its last commits are missing"):
        await SqlStorage(str(path)).open()


@pytest.mark.asyncio
async def test_a_large_file_that_is_no_database_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.storage.sqlite.sql.SMALL_FILE", 0)
    (tmp_path / "tasks.db").write_bytes(b"\7" * 9_000)
    with pytest.raises(StorageError, match="cannot be read"):
        await SqlStorage(str(tmp_path / "tasks.db")).open()


@pytest.mark.asyncio
async def test_a_check_that_goes_on_ends_with_the_storage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.storage.sqlite.sql.SMALL_FILE", 0)
    monkeypatch.setattr("core.storage.sqlite.inspection._PROGRAM", "import signal; signal.pause()")
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.close()
    assert storage.refusal() is None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("program", "told"),
    [("raise SystemExit(3)", "the check of {} failed"), (None, "{} was not checked")],
    ids=["breaks off", "does not start"],
)
async def test_a_check_that_cannot_be_made_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, program: str | None, told: str
) -> None:
    monkeypatch.setattr("core.storage.sqlite.sql.SMALL_FILE", 0)
    monkeypatch.setattr("core.storage.sqlite.inspection._PROGRAM", program or "")
    if program is None:
        monkeypatch.setattr("core.storage.sqlite.inspection.sys.executable", str(path.parent / "missing"))
    storage = SqlStorage(str(path))
    await storage.open()
    await asyncio.to_thread(storage.inspection.ended)
    await storage.close()
    assert caplog.messages[0].startswith(told.format(path))


@pytest.mark.usefixtures("hasty")
def test_a_check_that_nobody_waits_for_ends(path: Path) -> None:
    assert not examine(path, goes_on=lambda: False).is_complete
    assert examine(path, goes_on=lambda: True) == WHOLE


def test_commits_of_a_file_that_cannot_be_read_are_no_answer(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1_000)
    with pytest.raises(StorageError, match="cannot be read"):
        require_commits(path)
