"""The check of an open database's file (`integrity`), by a process beside this one: a start does not wait for it.

Rows are checked as they are read, whatever comes of this. It may take long: it reads all of the file, at low priority.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from core.storage.sqlite.integrity import examine, first_of

logger = logging.getLogger(__name__)

NICENESS = 10
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from core.storage.sqlite.inspection import main; main()"
)


class Inspection:
    """One check. `damage` says what it has found, once it has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self.damage: str | None = None

    def begin(self) -> None:
        """Start it. Where that cannot be, the log says so."""
        command = [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), str(self._path), str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            logger.warning("%s was not checked: %s; run `a2a-server db check`", self._path, error)
            return
        self._thread = threading.Thread(target=self._wait, args=(self._process,), name="inspection", daemon=True)
        self._thread.start()

    def ended(self) -> None:
        """Wait until it has. Blocks."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """End it, if it still goes on; may be called twice."""
        if self._process is not None:
            self._process.kill()
        self.ended()

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        told, _ = process.communicate()
        if process.returncode:
            if process.returncode > 0:
                logger.error("the check of %s failed; run `a2a-server db check`", self._path)
            return
        if problems := json.loads(told):
            self.damage = (
                f"The database {self._path.name} is damaged: {first_of(problems)}; stop the server, run "
                "`a2a-server db check`, restore a backup with `a2a-server db restore`"
            )
            logger.error(self.damage)
        else:
            logger.info("%s was checked: no damage", self._path)


def main() -> None:  # pragma: no cover - runs in a process of its own
    """Print the problems of the file, unless the process that wants to know them is gone."""
    path, parent = Path(sys.argv[2]), int(sys.argv[3])
    os.nice(NICENESS)
    verdict = examine(path, goes_on=lambda: os.getppid() == parent)
    if verdict.is_complete:
        print(json.dumps(verdict.problems))
