"""A PostgreSQL server of the tests' own: made by `initdb`, on a free port, gone with the tests.

It is never one that the machine runs. `initdb` refuses root, so root starts it as another user.
"""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

USERS = ("postgres", "nobody")  # as one of them, if the tests are root's
SUPERUSER = "owner"
PASSWORD = "let me in"
ABSENT = "PostgreSQL's initdb is not on this machine: what needs a PostgreSQL server is left out"
SETTINGS = ("fsync=off", "full_page_writes=off", "shared_buffers=32MB", "max_connections=100")


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest version first."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    found = Path("/usr/lib/postgresql").glob("*/bin")
    newest = sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], reverse=True)
    return next(
        (path for path in (*newest, *folders) if all((path / n).exists() for n in ("initdb", "postgres"))), None
    )


def _other_user() -> dict[str, Any]:
    """For `subprocess`."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(names[name] for name in USERS if name in names)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class Cluster:
    """`settings`: lines of postgresql.conf."""

    def __init__(self, settings: Sequence[str] = SETTINGS) -> None:
        self._programs = programs()
        assert self._programs is not None, ABSENT
        self.folder = Path(tempfile.mkdtemp(prefix="a2a-postgres-"))
        self._user = _other_user()
        if self._user:
            os.chown(self.folder, self._user["user"], self._user["group"])
        self.data = self.folder / "data"
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        options = ["--auth=scram-sha-256", f"--username={SUPERUSER}", f"--pwfile={password}", "--encoding=UTF8"]
        self.call("initdb", "-D", self.data, *options, "--no-locale", "--no-sync")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        lines = [
            *settings,
            "listen_addresses='127.0.0.1'",
            f"port={self.port}",
            f"unix_socket_directories='{self.folder}'",
        ]
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def call(self, program: str, *arguments: Any, check: bool = True) -> str:
        """What one of PostgreSQL's programs says."""
        assert self._programs is not None
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "LC_ALL": "C"}
        command = [str(self._programs / program), *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, check=False, **self._user
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Start the server, and wait until it takes connections."""
        assert self._programs is not None
        dying = [shutil.which("setpriv"), "--pdeathsig", "INT"] if shutil.which("setpriv") else []
        with (self.folder / "log").open("ab") as log:
            command = [*dying, str(self._programs / "postgres"), "-D", str(self.data)]
            self._process = subprocess.Popen(command, cwd="/", stdout=log, stderr=log, **self._user)  # type: ignore[arg-type]
        while self.call("psql", *self._to("postgres"), "-c", "SELECT 1", check=False) == "":
            assert self._process.poll() is None, (self.folder / "log").read_text()

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends its sessions, SIGQUIT lets it crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(sign)
            process.wait()

    def remove(self) -> None:
        """End it, and all that it was."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, text: str, database: str = "postgres") -> str:
        """What it gives, unaligned."""
        return self.call("psql", *self._to(database), "-v", "ON_ERROR_STOP=1", "-c", text).strip()

    def url(self, database: str, *, user: str = SUPERUSER, password: str = PASSWORD) -> str:
        """For a client."""
        return f"postgresql://{user}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def database(self, template: str = "template0") -> str:
        """The name of a new database."""
        name = f"test{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def empty(self, database: str) -> None:
        """End all sessions of a database of ours, and remove its rows: quicker than a new one from a template."""
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"
        tables = ("trees", "tasks", "events", "documents", "compactions", "members", "a2a_pgqueuer")
        self.sql("; ".join([end, *(f"DELETE FROM {table}" for table in tables)]), database)

    def drop(self, database: str) -> None:
        """Remove a database, with whoever is connected."""
        self.sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def _to(self, database: str) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-d", database, "-XAtq"]
