"""Functions for the tests to run in processes of their own. Without pytest, so that they load quickly."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

from core.executors.base import Parts, Rejected
from core.executors.process import ProcessExecutor, locate
from core.executors.signature import Signature
from tests.core.executors.context import make_context


def double(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"doubled": inputs["number"] * 2, "pid": os.getpid(), "group": os.getpgid(0)}


def nothing() -> None:
    print("printed by a child")


def tell(inputs: dict[str, Any], context: Any) -> Any:
    context.progress(0.5, "half")
    context.message("hello")
    context.artifact(Parts([{"text": "piece"}]), name="pieces", last_chunk=True)
    facts = [context.task_id, context.attempt, context.idempotency_key, context.dependencies["a"]]
    return Parts([{"text": " ".join(map(str, [*facts, "without", *context.absent]))}])


def describe(inputs: dict[str, Any], context: Any) -> Any:
    task = context.task
    try:
        task.name = "changed"
    except AttributeError:
        return [type(task).__name__, task.id, task.name, task.status.is_terminal, [d.id for d in task.dependencies]]
    return None


def ask_twice(inputs: dict[str, Any], context: Any) -> list[Any]:
    return [context.ask("first?"), context.ask("second?", auth=True)]


def say_nonsense(inputs: dict[str, Any], context: Any) -> None:
    context.progress("not a number")


def reply_late(inputs: dict[str, Any], context: Any) -> None:
    context.message("first")
    context.reply("too late")


def fail(inputs: dict[str, Any]) -> None:
    raise ValueError("it broke")


def fail_without_words(inputs: dict[str, Any]) -> None:
    raise KeyError


def reject(inputs: dict[str, Any]) -> None:
    raise Rejected("not mine")


def leave(inputs: dict[str, Any]) -> None:
    sys.exit("going")


def die(inputs: dict[str, Any]) -> None:
    os._exit(3)


def kill_itself(inputs: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def return_a_set(inputs: dict[str, Any]) -> set[int]:
    return {1}


def return_a_number_as_a_key(inputs: dict[str, Any]) -> Any:
    return [{"a": ({1: "int", "1": "str"},)}]


def give_a_number_as_a_key(inputs: dict[str, Any], context: Any) -> None:
    context.artifact({"a": {1: 2}})


def return_itself(inputs: dict[str, Any]) -> Any:
    inputs["itself"] = inputs
    return inputs


def hang(inputs: dict[str, Any], context: Any) -> None:
    """With a child of its own, and deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen(["/bin/sleep", "1000"])
    context.message(json.dumps([os.getpid(), grandchild.pid]))
    time.sleep(1000)


def nested() -> Any:
    """Runs `echo` in a process of this process."""
    return asyncio.run(ProcessExecutor(locate(echo), Signature(arity=1)).execute({"n": 1}, make_context()))


def echo(inputs: dict[str, Any]) -> Any:
    return inputs


class Adder:
    def execute(self, inputs: dict[str, Any]) -> int:
        return int(inputs["a"]) + int(inputs["b"])


def copy_file(inputs: dict[str, Any], context: Any) -> Any:
    """Gives the file it is given, its first byte ahead of it."""
    content = context.read_file(inputs["files"][0])
    context.artifact(Parts([{"raw": content[:1]}]), artifact_id="first")
    return Parts([{"raw": content, "filename": "copy"}])


def read(inputs: dict[str, Any], context: Any) -> int:
    return len(context.read_file({"raw": "aGVsbG8h"}))


def by_name(number: int, context: Any, times: int = 2) -> Any:
    return [number * times, context.attempt]


def marks(inputs: dict[str, Any], context: Any) -> Any:
    """Says, asks and gives with metadata and extensions, and returns what it sees of them."""
    context.message("said", metadata={"m": 1}, extensions=["https://a.example/m"])
    seen = [context.answer_message]
    asking: dict[str, Any] = {"metadata": {"q": 1}, "extensions": ["https://a.example/q"]}
    for question in ("first?", "second?"):
        context.ask(question, **asking)
        seen.append(context.answer_message)
    context.artifact("given", artifact_id="a", metadata={"a": 1}, extensions=["https://a.example/a"])
    return {"seen": seen, "extensions": list(context.extensions)}
