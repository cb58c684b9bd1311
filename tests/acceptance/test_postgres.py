"""A server on PostgreSQL, seen from outside: killed, cut off, and beside a second one."""

import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.process import ServerProcess
from tests.acceptance.story import Story, check_effects, plan
from tests.postgres_cluster import Cluster

EX_TEMPFAIL = 75


@pytest.fixture(scope="module")
def postgres_durable() -> Iterator[Cluster]:
    """One that syncs what it stores, and may be ended by a test."""
    cluster = Cluster(settings=("shared_buffers=32MB",))
    yield cluster
    cluster.remove()


@pytest.fixture
def server(postgres_durable: Cluster, tmp_path: Path) -> Iterator[ServerProcess]:
    name = postgres_durable.database()
    process = ServerProcess(tmp_path, database=postgres_durable.url(name))
    process.start()
    yield process
    process.close()
    postgres_durable.drop(name)


def test_a_tree_survives_a_kill_of_its_server(server: ServerProcess) -> None:
    chance = random.Random(7)
    for _ in range(3):
        story = Story(server, plan(chance, 60))
        story.follow(until=chance.randrange(2, 100))
        server.kill()
        server.start()
        assert story.follow(), "the stream did not reach its end"
        story.check()
    assert check_effects(server.folder)


@pytest.mark.parametrize("sign", [signal.SIGQUIT, signal.SIGINT], ids=["crash", "restart"])
def test_nobody_notices_that_postgresql_was_away_for_a_moment(
    server: ServerProcess, postgres_durable: Cluster, sign: signal.Signals
) -> None:
    """Every commit under way is stored once or refused, and each event is told once."""
    chance = random.Random(sign)
    story = Story(server, plan(chance, 200))
    story.follow(until=50)
    told: list[bool] = []
    follower = threading.Thread(target=lambda: told.append(bool(story.follow())))
    follower.start()
    postgres_durable.stop(sign)
    postgres_durable.start()
    follower.join(60)
    assert told == [True] or story.follow(), "the stream did not reach its end"
    story.check()
    check_effects(server.folder)


def test_a_second_server_is_refused_in_one_line_while_the_first_one_goes_on(
    server: ServerProcess, tmp_path: Path
) -> None:
    other = ServerProcess(tmp_path, database=server.command[server.command.index("--database") + 1])
    done = subprocess.run(other.command, env=other.env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == EX_TEMPFAIL
    (line,) = done.stderr.splitlines()
    assert f"is in use by another server (process {server.pid} on " in line and "let me in" not in line
    story = Story(server, plan(random.Random(1), 10))
    assert story.follow()
    story.check()


def test_a_server_that_is_told_to_end_lets_go_of_the_database(server: ServerProcess, postgres_durable: Cluster) -> None:
    assert server.terminate() == 0
    database = server.command[server.command.index("--database") + 1].rpartition("/")[2]
    assert postgres_durable.sql("SELECT count(*) FROM members", database) == "0"
    server.start()


def test_a_server_whose_trees_were_given_to_another_one_ends_in_one_line(
    server: ServerProcess, postgres_durable: Cluster
) -> None:
    """So does one that was stopped for longer than its lease lasts and goes on: a service manager starts it anew."""
    database = server.command[server.command.index("--database") + 1].rpartition("/")[2]
    postgres_durable.sql("DELETE FROM a2a_pgqueuer", database)
    assert server._end(40) == EX_TEMPFAIL
    (line,) = [line for line in server.log if "CRITICAL" in line]
    assert "were given to another one, since it gave no sign of life to the PostgreSQL database" in line
    server.start()
