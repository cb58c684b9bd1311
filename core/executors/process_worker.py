"""The child's end of `isolation="process"`: runs one function once. Started as a script by `process.py`.

It imports nothing of the core by itself, so that it starts quickly. It talks with its parent over one socket, in
frames: four bytes of length, then JSON. First comes the job; then the child sends calls (progress, artifact, …), each
of which is answered, and in the end its result or what was raised.
"""

import base64
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any

HEADER = 4  # bytes
# While a worker loads a function's file, this variable has its process id. Not a name that the server's settings have.
LOADING = "A2A_WORKER_LOADING"

MOST_NAMED = 10  # exceptions of a group whose texts are told
MOST_TOLD = 3_000  # characters of all of them

IMPORTING = ("<frozen importlib", os.path.dirname(importlib.__file__) + os.sep)  # the ways to a module, no places
OURS = tuple(
    os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", name) for name in ("core", "a2a_server")
)
OURS = tuple(os.path.normpath(path) + os.sep for path in OURS)
LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Refused(RuntimeError):
    """What the parent answers in place of a value. Its text is safe to show."""


class Channel:
    """The socket to the parent."""

    def __init__(self, connection: socket.socket, hung_up: Callable[[], None]) -> None:
        self._connection = connection
        self._hung_up = hung_up  # called when the parent is gone
        self._incoming: SimpleQueue[Any] = SimpleQueue()
        self._lock = threading.Lock()

    def listen(self) -> None:
        """Read in a thread of its own, so that the parent's end is seen at once: nothing else stops this process."""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self._incoming.put(json.loads(self._exactly(int.from_bytes(self._exactly(HEADER)))))
        except (EOFError, OSError):
            self._hung_up()

    def _exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self._connection.recv(min(size - len(received), 1 << 20))
            if not part:
                raise EOFError
            received += part
        return bytes(received)

    def receive(self) -> Any:
        return self._incoming.get()

    def send(self, value: Any) -> None:
        data = json.dumps(value).encode()  # first, for it refuses what holds itself
        refuse_odd_keys(value)
        self._connection.sendall(len(data).to_bytes(HEADER) + data)

    def call(self, method: str, positional: list[Any], named: dict[str, Any]) -> Any:
        """Have the parent call a method of the task's context. Raises Refused with the text of what it raised."""
        with self._lock:  # the function may use threads
            self.send({"call": method, "positional": positional, "named": named})
            answer = self.receive()
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["value"]


class ProcessContext:
    """A function's view of its task from a process of its own. Each method returns when what it says is stored."""

    def __init__(self, channel: Channel, facts: dict[str, Any]) -> None:
        self._channel = channel
        self._task: dict[str, Any] = facts["task"]
        self.task_id: str = facts["task_id"]
        self.run: int = facts["run"]
        self.attempt: int = facts["attempt"]
        self.idempotency_key: str = facts["idempotency_key"]
        self.dependencies: dict[str, Any] = facts["dependencies"]
        self.absent: tuple[str, ...] = tuple(facts["absent"])
        self.request: dict[str, Any] = facts["request"]
        self.extensions: tuple[str, ...] = tuple(facts["extensions"])
        self.answer_message: dict[str, Any] | None = None  # see TaskContext.answer_message
        self.context_id: str | None = facts["context_id"]
        self._messages: list[Any] = facts["answer_messages"]
        self.cancel_metadata: dict[str, Any] = {}

    @property
    def cancelled(self) -> bool:
        """Whether it is to stop. Only an executor with `cancelable=False` sees that: others are killed."""
        return bool(self._channel.call("is_cancelled", [], {}))

    @property
    def task(self) -> Any:
        """The `core.model.task.Task` as it was when the attempt began. The core is imported for it when it is read."""
        return importlib.import_module("msgspec").convert(self._task, importlib.import_module("core.model.task").Task)

    def progress(self, fraction: float, message: str | None = None) -> None:
        """See TaskContext.progress."""
        self._channel.call("progress", [fraction, message], {})

    def message(self, content: Any, *, metadata: dict[str, Any] | None = None, extensions: Sequence[str] = ()) -> None:
        """See TaskContext.message."""
        self._channel.call("message", [wrapped(content)], {"metadata": metadata, "extensions": extensions})

    def reply(self, content: Any, *, metadata: dict[str, Any] | None = None, extensions: Sequence[str] = ()) -> None:
        """See TaskContext.reply."""
        self._channel.call("reply", [wrapped(content)], {"metadata": metadata, "extensions": extensions})

    def artifact(
        self,
        content: Any,
        *,
        append: bool | None = None,
        last_chunk: bool = False,
        artifact_id: str | None = None,
        name: str | None = None,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        extensions: Sequence[str] = (),
    ) -> None:
        """See TaskContext.artifact."""
        named: dict[str, Any] = {"append": append, "last_chunk": last_chunk, "artifact_id": artifact_id}
        named |= {"name": name, "description": description, "metadata": metadata, "extensions": extensions}
        self._channel.call("artifact", [wrapped(content)], named)

    def read_file(self, part: dict[str, Any]) -> bytes:
        """See TaskContext.read_file."""
        return base64.b64decode(self._channel.call("read_file", [wrapped(part)], {}))

    def ask(
        self,
        question: Any,
        *,
        auth: bool = False,
        metadata: dict[str, Any] | None = None,
        extensions: Sequence[str] = (),
    ) -> Any:
        """See TaskContext.ask. Without an answer the parent ends this process here."""
        named = {"auth": auth, "metadata": metadata, "extensions": extensions}
        answer = self._channel.call("ask", [wrapped(question)], named)
        self.answer_message = self._messages.pop(0) if self._messages else None
        return answer


def refuse_odd_keys(value: Any) -> None:
    """Raise TypeError for a key that JSON would silently turn into text, as the core does for its own process."""
    inner = [value]
    while inner:
        each = inner.pop()
        if isinstance(each, dict):
            odd = [key for key in each if not isinstance(key, str)]
            if odd:
                raise TypeError(f"an object has the key {odd[0]!r}, which is not a string")
            inner.extend(each.values())
        elif isinstance(each, list | tuple):
            inner.extend(each)


def is_of(kind: type, name: str, module: str = "core.executors.base") -> bool:
    """Whether the type is the core's type of that name; known by name, since the core may not be imported here."""
    return any(base.__module__ == module and base.__name__ == name for base in kind.__mro__)


def wrapped(content: Any) -> dict[str, Any]:
    """A value for the wire that still knows whether it was `Parts`, with the bytes of files in base64."""
    if not is_of(type(content), "Parts"):
        return {"value": content}
    return {"parts": [encoded(part) for part in content]}


def encoded(part: Any) -> Any:
    """The part with `raw` bytes as text; see core.executors.files."""
    if isinstance(part, dict) and isinstance(raw := part.get("raw"), bytes | bytearray | memoryview):
        return {**part, "raw": base64.b64encode(raw).decode()}
    return part


def is_loading() -> bool:
    """Whether this process is a worker that still loads its function's file: no time to start any work."""
    return os.environ.get(LOADING) == str(os.getpid())  # what a worker starts inherits the variable, but not the id


def load(module: str, path: str, qualified_name: str) -> Any:
    """Find the function: by its module's name where that leads to the same file, else by the file.

    A program's main file is executed for that under another name, so all of it runs but what it guards with
    `if __name__ == "__main__"`. A core that it starts meanwhile refuses, else it would start itself without end.
    """
    os.environ[LOADING] = str(os.getpid())
    try:
        found = _module(module, path)
    finally:
        del os.environ[LOADING]
    for part in qualified_name.split("."):
        found = getattr(found, part)
    return found


def _module(module: str, path: str) -> Any:
    try:
        spec = importlib.util.find_spec(module) if module != "__main__" else None
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin is not None and os.path.realpath(spec.origin) == os.path.realpath(path):
        return importlib.import_module(module)
    name = "__executor_main__" if module == "__main__" else module
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions of a group and of the groups in it, in their order; of another exception itself."""
    found: list[BaseException] = []
    pending = [error]
    while pending:
        each = pending.pop()
        if isinstance(each, BaseExceptionGroup):
            pending.extend(reversed(each.exceptions))
        else:
            found.append(each)
    return found


def text_of(error: BaseException) -> str:
    """What is said of an exception: `KeyError: 'pgae' (ex.py:7)`; of a group what is said of each in it."""
    each = leaves(error)
    named = [_described(one, MOST_TOLD // min(len(each), MOST_NAMED)) for one in each[:MOST_NAMED]]
    if len(each) == 1:
        return named[0]
    more = [f"and {len(each) - MOST_NAMED} more"] if len(each) > MOST_NAMED else []
    return f"{len(each)} errors: {'; '.join(named + more)}"


def kinds_of(error: BaseException) -> str:
    """The name of the exception's type; of a group those of what is in it."""
    kinds = dict.fromkeys(type(each).__name__ for each in leaves(error))
    return ", ".join([*kinds][:MOST_NAMED])


def _described(error: BaseException, most: int) -> str:
    """One exception: its type, its text up to so many characters, and the line of the user's code."""
    kind = type(error).__name__
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 - a `__str__` of theirs
        text = "its __str__ raises an error itself"
    if len(text) > most:
        text = text[: most - 1] + "…"
    place = where(error)
    return (f"{kind}: {text}" if text else kind) + (f" ({place})" if place else "")


def where(error: BaseException) -> str | None:
    """File and line at which the user's own code stood when the exception was raised, or an executor's in a library."""
    found = None
    step = error.__traceback__
    is_own = False
    while step is not None:
        path = step.tb_frame.f_code.co_filename
        if not is_ours(path) and not path.startswith(IMPORTING):
            if not path.startswith((*LIBRARIES, "<")):
                found, is_own = step, True
            elif not is_own:
                found = step
        step = step.tb_next
    if found is None:
        return None
    return f"{os.path.basename(found.tb_frame.f_code.co_filename)}:{found.tb_lineno}"


def is_ours(path: str) -> bool:
    """Whether the file is one of this program's."""
    return path.startswith(OURS) or path == __file__


def run(channel: Channel) -> dict[str, Any]:
    """Do the job; what it came to, for the parent."""
    job = channel.receive()
    sys.path[:] = job["sys_path"]
    try:
        found = load(job["module"], job["path"], job["qualified_name"])
        function: Callable[..., Any] = found().execute if isinstance(found, type) else found
        context = ProcessContext(channel, job["context"])
        if job["arity"] is None:
            signature = importlib.import_module("core.executors.signature")
            result = signature.signature_of(function, "executor", is_method=False).call(
                function, job["inputs"], context
            )
        else:
            result = function(*[job["inputs"], context][: job["arity"]])
    except BaseException as error:  # noqa: BLE001 - it is raised in the parent
        if is_of(type(error), "Rejected"):
            return {"rejected": str(error)}
        if is_of(type(error), "InputsRefused", "core.executors.signature"):
            return {"unfit": str(error)}
        if isinstance(error, Refused):
            return {"refused": str(error)}
        return {"raised": text_of(error), "kind": kinds_of(error)}
    return {"result": wrapped(result)}


def main() -> None:  # pragma: no cover - the parent kills it, so nothing is measured
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)  # what the function starts must not hold the channel open
    channel = Channel(connection, lambda: os.killpg(0, signal.SIGKILL))
    channel.listen()
    outcome = run(channel)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        channel.send(outcome)
    except (TypeError, ValueError, RecursionError) as error:
        channel.send({"raised": f"the result is not JSON: {error}", "kind": "NotJson"})
    threading.Event().wait()  # the parent reads the outcome, then ends the whole group


if __name__ == "__main__":  # pragma: no cover
    main()
