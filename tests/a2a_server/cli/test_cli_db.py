"""`a2a-server db`, beside a running server and without one."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from a2a_server.auth.apikeys import ApiKeys
from core.outside.clock import SystemClock
from core.storage.postgres.storage import PostgresStorage
from core.storage.tables import REVISIONS
from tests.a2a_server.cli.test_cli import Cli, cli
from tests.acceptance.process import ServerProcess
from tests.postgres_cluster import Cluster

__all__ = ["cli"]  # the fixture

DATABASE = ("--database", "sqlite:///server.db")


def test_check_and_backup_work_beside_a_server_and_restore_waits_for_its_end(cli: Cli, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path).start()
    try:
        root = server.call("tasks.create", [{"id": "a", "name": "noop"}])["root_task_id"]

        assert cli("db", "check", *DATABASE, "-o", "json").json()["ok"] is True
        made = cli("db", "backup", "copy.db", *DATABASE, "-o", "json").json()
        assert made["bytes"] == (tmp_path / "copy.db").stat().st_size
        refused = cli("db", "restore", "copy.db", *DATABASE)
        assert refused.code == 1
        assert f"in use by process {server.pid}" in refused.err and refused.err.count("\n") == 1

        server.call("tasks.create", [{"id": "b", "name": "noop"}])
        assert server.terminate() == 0
        assert cli("db", "restore", "copy.db", *DATABASE).code == 0
        server.start()
        assert [task["id"] for task in server.call("tasks.list", {})] == [root]
        assert server.terminate() == 0
    finally:
        server.close()


def test_damage_is_told_line_by_line_and_by_the_exit_code(cli: Cli, tmp_path: Path) -> None:
    assert cli("migrate", *DATABASE).code == 0
    whole = cli("db", "check", *DATABASE)
    assert (whole.code, whole.out) == (0, f"{tmp_path}/server.db is whole\n")
    connection = sqlite3.connect("server.db")
    connection.execute("INSERT INTO events VALUES ('t', 1, 'x', 't', 1.0, x'7b7d', 5)")
    connection.commit()
    connection.close()

    told = cli("db", "check", *DATABASE)
    assert told.code == 1
    assert "event 1 of tree t is corrupt" in told.out and told.out.endswith("is damaged\n")
    verdict = cli("db", "check", *DATABASE, "-o", "json").json()
    assert verdict["ok"] is False and len(verdict["problems"]) == 2
    assert cli("db", "backup", "copy.db", *DATABASE).code == 1
    assert not Path("copy.db").exists()


def test_what_is_not_there_is_one_line(cli: Cli) -> None:
    for arguments in (("check",), ("backup", "copy.db"), ("restore", "copy.db")):
        done = cli("db", *arguments, *DATABASE)
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    with closing(sqlite3.connect("theirs.db")) as theirs:
        theirs.execute("CREATE TABLE t (x)")
    assert "not a database of a2a-server" in cli("db", "check", "--database", "sqlite:///theirs.db").out


def test_postgresql_has_its_own_tools_and_says_so(cli: Cli) -> None:
    url = "postgresql://ann:secret@h/db"
    for words in (("check",), ("backup", "copy.db"), ("restore", "copy.db")):
        refused = cli("db", *words, "--database", url)
        assert refused.code == 1
        assert refused.err.endswith("for postgresql://h/db use pg_amcheck, pg_dump and pg_restore\n")
        assert "secret" not in refused.err and refused.err.count("\n") == 1


def test_keys_are_changed_beside_the_server_that_has_the_database(cli: Cli, postgres_url: str) -> None:
    """Found by reading: the command was refused, as if it would run trees."""
    there = ("--database", postgres_url)
    with asyncio.Runner() as runner:
        storage = PostgresStorage(postgres_url)
        runner.run(storage.open())
        key = cli("keys", "create", "ann", *there, "-o", "json").json()
        keys = ApiKeys(storage, SystemClock())
        assert runner.run(keys.principal(key["key"])).id == "ann"
        assert cli("keys", "revoke", key["id"], *there).code == 0
        assert runner.run(keys.all())[0].revoked_at is not None
        runner.run(storage.close())


def test_migrate_and_keys_work_on_postgresql(cli: Cli, postgres: Cluster) -> None:
    name = postgres.database()
    there = ("--database", postgres.url(name))
    done = cli("migrate", *there)
    assert (done.code, done.out) == (0, f"postgresql://127.0.0.1:{postgres.port}/{name} has schema {REVISIONS[-1]}\n")
    key = cli("keys", "create", "ann", *there, "-o", "json").json()
    assert [each["id"] for each in cli("keys", "list", *there, "-o", "json").json()] == [key["id"]]
    assert cli("keys", "revoke", key["id"], *there).code == 0
    postgres.drop(name)
