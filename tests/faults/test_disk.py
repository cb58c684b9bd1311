"""R11: a disk that is full or fails. Nothing is acknowledged that is not durable, and what can go on goes on."""

import asyncio
import errno
import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import apsw
import pytest

from core.model.errors import StorageUnavailable
from core.storage.sqlite import writer_thread as writer_module
from core.storage.sqlite.migrate import migrate
from core.storage.sqlite.sql import SqlStorage
from core.storage.sqlite.writer_thread import EXIT_CODE
from core.storage.write_queue import WriteQueue
from tests.acceptance.process import ServerProcess
from tests.core.storage.samples import created
from tests.faults.power import Cut, Disk, PoweredWriter, PowerVfs
from tests.faults.report import report

TIMES = int(os.environ.get("DISK_FAULTS", "100"))
FILE = "tasks.db"


class Failing(Disk):
    """A disk of which operations of one kind fail: after `spared` more of them, until `mend`."""

    def __init__(self) -> None:
        super().__init__(())
        self.mend()

    def harm(self, operation: str, error: int, spared: int = 0) -> None:
        self._operation, self._error, self._spared = operation, error, spared

    def mend(self) -> None:
        self._operation, self._error, self._spared = "", 0, 0
        self.failed = 0

    def fault(self, operation: str) -> int | None:
        if operation != self._operation:
            return None
        if self._spared > 0:
            self._spared -= 1
            return None
        self.failed += 1
        return self._error


class Hasty(PoweredWriter):
    """The positive control: says that all is well whatever the disk said."""

    def _failed_batch(self, items: Any, message: str) -> Any:
        return [(future, None, None) for future, _, _ in super()._failed_batch(items, message)]


async def write(writer: WriteQueue, name: str, count: int) -> tuple[list[str], list[BaseException]]:
    """Which of so many new trees were acknowledged, and how the others failed."""
    ids = [f"{name}.{n}" for n in range(count)]
    answers = await asyncio.gather(*[writer.submit(created(each)) for each in ids], return_exceptions=True)
    acknowledged = [each for each, answer in zip(ids, answers, strict=True) if answer is None]
    return acknowledged, [answer for answer in answers if answer is not None]


async def stored(path: Path) -> set[str]:
    """The trees that the next process finds in a sound file."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ids = {tree_id for (tree_id,) in connection.execute("SELECT id FROM trees")}
    connection.close()
    storage = SqlStorage(str(path))
    await storage.open()
    try:
        assert all([await storage.load(tree_id) for tree_id in ids])
    finally:
        await storage.close()
    return ids


async def troubled(
    tmp_path: Path, kind: type[PoweredWriter], operation: str, error: int, chance: random.Random
) -> tuple[set[str], set[str], int, float]:
    """Writes before, in and after each trouble: acknowledged, stored, failures, longest recovery in seconds."""
    path = tmp_path / FILE
    migrate(path)
    disk = Failing()
    vfs = PowerVfs(disk)
    writer = WriteQueue(kind(path, disk))
    await writer.start()
    acknowledged: set[str] = set()
    failures, slowest = 0, 0.0
    for n in range(TIMES):
        disk.harm(operation, error, spared=chance.randrange(150))
        for round_ in range(3):
            good, errors = await write(writer, f"{n}.{round_}", chance.randrange(1, 6))
            assert all(isinstance(each, StorageUnavailable) for each in errors), errors
            acknowledged.update(good)
            failures += len(errors)
        disk.mend()
        began = monotonic()
        good, errors = await write(writer, f"{n}.after", 1)
        assert errors == [], "writes do not go on when the disk is well again"
        slowest = max(slowest, monotonic() - began)
        acknowledged.update(good)
    await writer.close()
    vfs.unregister()
    return acknowledged, await stored(path), failures, slowest


@pytest.mark.parametrize(
    ("operation", "error"), [("write", apsw.SQLITE_FULL), ("read", apsw.SQLITE_IOERR_READ)], ids=["full", "unreadable"]
)
@pytest.mark.asyncio
async def test_trouble_with_the_disk_refuses_writes_and_loses_none(
    tmp_path: Path, operation: str, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(10**6)
    print(f"seed={seed}")
    # So few pages in memory that statements have to read, and none written early, which a COMMIT would read again.
    few = ("PRAGMA cache_size=2", "PRAGMA cache_spill=OFF")
    monkeypatch.setattr(writer_module, "PRAGMAS", (*writer_module.PRAGMAS, *few))

    acknowledged, found, failures, slowest = await troubled(
        tmp_path, PoweredWriter, operation, error, random.Random(seed)
    )

    lost = len(acknowledged - found)
    figures = (
        f"{TIMES} times, {failures} writes refused, {len(acknowledged)} acknowledged, {lost} lost, "
        f"recovery {slowest:.2f} s at most, integrity ok"
    )
    report("R11", f"{operation}s that fail with {apsw.mapping_result_codes.get(error & 0xFF)}", figures, seed=seed)
    assert failures > TIMES
    assert acknowledged == found, "lost, or stored although it was refused"
    assert slowest < 5


@pytest.mark.asyncio
async def test_a_writer_that_acknowledges_before_it_has_committed_is_caught(tmp_path: Path) -> None:
    """The positive control."""
    acknowledged, found, _, _ = await troubled(tmp_path, Hasty, "write", apsw.SQLITE_FULL, random.Random(1))
    report("R11", "control: acknowledged whatever the disk says", f"{len(acknowledged - found)} lost")
    assert acknowledged - found


async def until_the_end(folder: Path, chance: random.Random) -> tuple[set[str], set[str]]:
    """Writes until a sync fails and the process ends there: acknowledged, and stored at the next start."""
    path = folder / FILE
    migrate(path)
    disk = Failing()
    vfs = PowerVfs(disk)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()

    def end(code: int) -> None:
        loop.call_soon_threadsafe(ended.set_result, code)
        raise SystemExit  # the writer's thread goes no further, as in a process that has ended

    writer = WriteQueue(PoweredWriter(path, disk, end))
    await writer.start()
    acknowledged: set[str] = set()
    disk.harm("sync", apsw.SQLITE_IOERR_FSYNC, spared=chance.randrange(20))
    while not ended.done():
        tree = created(f"tree {len(acknowledged)}")
        future = writer.submit(tree)
        await asyncio.wait([ended, future], return_when=asyncio.FIRST_COMPLETED)
        if future.done():
            assert future.exception() is None
            acknowledged.add(tree.head.id)
    assert ended.result() == EXIT_CODE
    late = writer.submit(created("late"))
    assert not late.done(), "something is answered after the end"
    assert len(disk.acknowledged) == len(acknowledged)
    Cut(files=disk.files, acknowledged=()).restore(folder / "after", chance, torn=True)
    disk.mend()
    vfs.unregister()
    return acknowledged, await stored(folder / "after" / FILE)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # how `end` stops the thread
@pytest.mark.asyncio
async def test_a_sync_that_fails_ends_the_process_and_nothing_acknowledged_is_lost(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a COMMIT or, with this rhythm of checkpoints, in one of them."""
    monkeypatch.setattr(writer_module, "CHECKPOINT_PAGES", 40)
    seed = random.randrange(10**6)
    print(f"seed={seed}")
    chance = random.Random(seed)
    lost = count = 0
    for _ in range(TIMES // 2):
        acknowledged, found = await until_the_end(tmp_path_factory.mktemp("disk"), chance)
        lost += len(acknowledged - found)
        count += len(acknowledged)
    figures = f"{TIMES // 2} of {TIMES // 2} ended with {EXIT_CODE}, {count} acknowledged, {lost} lost, restart clean"
    report("R11", "a sync that fails", figures, seed=seed)
    assert lost == 0 and count > TIMES


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here; the VFS tests beside this one run everywhere")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_server_on_a_full_disk_refuses_writes_serves_reads_and_recovers(small_disk: Path) -> None:
    """From outside: a real process, a real file system, and no reserve."""
    server = ServerProcess(small_disk, "--default-skill", "noop", env={"A2A_SERVER_DISK_RESERVE": "0"})
    server.start()
    try:
        kept = [send(server)[1]["result"]["task"]["id"] for _ in range(5)]
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            while True:
                file.write(b"x" * 4096)
        refused = 0
        while not refused:  # the log may have room from before
            status, answer = send(server)
            if "result" in answer:
                kept.append(answer["result"]["task"]["id"])
            else:
                assert (status, answer["error"]["code"]) == (503, -32051)
                refused += 1
        for task_id in kept:
            assert server.call("GetTask", {"id": task_id})["id"] == task_id, "reads go on"
        ready = server.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unready")
        filler.unlink()
        began = monotonic()
        while "result" not in send(server)[1]:
            assert monotonic() - began < 5
        recovery = monotonic() - began
        assert server.client.get("/readyz").status_code == 200
        server.kill()
        server.start()
        assert all(server.call("GetTask", {"id": task_id})["status"] for task_id in kept)
        assert server.terminate() == 0
        figures = f"{len(kept)} acknowledged, 0 lost, 503 while full, reads went on, recovery {recovery:.2f} s"
        report("R11", "a server on a full file system", figures)
    finally:
        server.close()


def test_a_server_whose_disk_is_nearly_full_ends_and_deletes_what_it_has(small_disk: Path) -> None:
    reserve = 256 * 1024
    server = ServerProcess(small_disk, "--default-skill", "noop", env={"A2A_SERVER_DISK_RESERVE": str(reserve)})
    server.start()
    try:
        kept = send(server)[1]["result"]["task"]["id"]
        hanging = server.call("tasks.execute", {"tasks": [{"name": "hang"}]})["root_task_id"]
        disk = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(b"x" * (disk.f_bavail * disk.f_frsize - reserve + 4096))
        status, answer = send(server)
        assert (status, answer["error"]["code"]) == (503, -32051)
        assert "delete tasks" in answer["error"]["message"]
        ready = server.client.get("/readyz")
        assert ready.status_code == 503
        assert (
            ready.json()["reason"] == f"The disk of server.db has less than {reserve} bytes free: new work is refused"
        )
        (cancelled,) = server.call("tasks.cancel", {"task_ids": [hanging]})
        assert cancelled["status"] == "cancelled"
        server.call("tasks.delete", {"task_id": kept})
        (small_disk / "filler").unlink()
        assert "result" in send(server)[1]
        assert server.client.get("/readyz").json() == {"status": "ready"}
        assert server.terminate() == 0
    finally:
        server.close()


def send(server: ServerProcess) -> tuple[int, Any]:
    """A message: the status and the answer."""
    params = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x" * 2000}]}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    response = server.client.post("/", json=body, headers={"A2A-Version": "1.0"})
    return response.status_code, response.json()
