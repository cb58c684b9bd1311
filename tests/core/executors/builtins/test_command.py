"""Programs run for a task: only those that are allowed, without a shell, and nothing of them is left."""

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.executors import process_group
from core.executors.builtins import command
from core.executors.builtins.command import CommandFailed, CommandPolicy, command_executor_spec
from core.executors.family import Family
from core.executors.process_group import ProcessGroup, living_members, start, uninterrupted
from core.executors.schema import check_schema, violation
from core.loop.large_values import CHARACTERS, encoded_text
from core.model.errors import ConfigurationError
from tests.core.executors.context import make_context

SHELL = CommandPolicy(programs=("sh",))


async def run(policy: CommandPolicy, inputs: dict[str, Any]) -> dict[str, Any]:
    """As the runner does it: the inputs are checked, then the executor runs, then its result is checked."""
    spec = command_executor_spec(policy)
    assert spec.input_schema is not None and spec.output_schema is not None
    if (wrong := violation(spec.input_schema, inputs, "inputs")) is not None:
        raise CommandFailed(wrong)
    result = await spec.make().execute(inputs, make_context(inputs=inputs))
    assert violation(spec.output_schema, result, "result") is None
    assert isinstance(result, dict)
    return result


async def sh(script: str, policy: CommandPolicy = SHELL, **more: Any) -> dict[str, Any]:
    return await run(policy, {"argv": ["sh", "-c", script]} | more)


def test_spec_counts_as_a_process_and_names_its_programs() -> None:
    spec = command_executor_spec(SHELL)
    assert spec.uses_process and spec.cancelable
    assert "sh" in spec.description
    assert spec.input_schema is not None
    check_schema(spec.input_schema, "it")


@pytest.mark.asyncio
async def test_both_forms_of_inputs_run_the_program() -> None:
    echo = CommandPolicy(programs=("echo",))
    expected = {"exit_code": 0, "stdout": "a  b\n", "stderr": "", "truncated": False}
    assert await run(echo, {"argv": ["echo", "a  b"]}) == expected
    assert await run(echo, {"program": "echo", "args": ["a  b"]}) == expected
    assert await run(echo, {"argv": [echo.paths["echo"], "a  b"]}) == expected
    for inputs in ({}, {"argv": ["echo"], "program": "echo"}):
        with pytest.raises(CommandFailed, match="either argv, or program and args"):
            await run(echo, inputs)


@pytest.mark.asyncio
async def test_program_gets_a_clean_environment_and_its_idempotency_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    result = await run(CommandPolicy(programs=("env",)), {"argv": ["env"]})
    names = {line.partition("=")[0] for line in result["stdout"].splitlines()}
    assert names - {"LC_CTYPE"} == {"PATH", "LANG", "A2A_IDEMPOTENCY_KEY", "A2A_CHILD_OF"}
    assert "A2A_IDEMPOTENCY_KEY=t1:1" in result["stdout"]


@pytest.mark.asyncio
async def test_program_reads_the_given_text_or_nothing() -> None:
    cat = CommandPolicy(programs=("cat", "true"))
    assert (await run(cat, {"argv": ["cat"], "stdin": "hällo"}))["stdout"] == "hällo"
    assert (await run(cat, {"argv": ["cat"]}))["stdout"] == ""
    # It ends without reading: no error, no hang.
    assert (await run(cat, {"argv": ["true"], "stdin": "x" * 1_000_000}))["exit_code"] == 0


@pytest.mark.asyncio
async def test_directory_is_one_of_the_policys(tmp_path: Path) -> None:
    policy = CommandPolicy(programs=("pwd",), directories=("/usr", str(tmp_path)))
    assert (await run(policy, {"argv": ["pwd"]}))["stdout"] == "/usr\n"
    assert (await run(policy, {"argv": ["pwd"], "cwd": str(tmp_path)}))["stdout"] == f"{tmp_path}\n"
    with pytest.raises(CommandFailed, match=r"inputs\.cwd"):
        await run(policy, {"argv": ["pwd"], "cwd": "/etc"})
    with pytest.raises(CommandFailed, match="'cwd' was unexpected"):
        await run(CommandPolicy(programs=("pwd",)), {"argv": ["pwd"], "cwd": "/etc"})


@pytest.mark.asyncio
async def test_directory_is_checked_without_the_schema_too() -> None:
    """A task may bring a schema of its own, which takes the place of the executor's."""
    inputs = {"argv": ["pwd"], "cwd": "/etc"}
    for directories, told in (((), "must be omitted: no directory is allowed"), (("/usr",), "must be one of /usr")):
        policy = CommandPolicy(programs=("pwd",), directories=directories)
        with pytest.raises(CommandFailed, match=rf"^inputs\.cwd: {told}$"):
            await command_executor_spec(policy).make().execute(inputs, make_context())


@pytest.mark.asyncio
async def test_failure_names_the_exit_code_and_the_end_of_the_error_output() -> None:
    with pytest.raises(CommandFailed, match=r"ended with exit code 7: sorry$"):
        await sh("echo sorry >&2; exit 7")
    with pytest.raises(CommandFailed, match=r"ended with exit code 1$"):
        await sh("exit 1")
    with pytest.raises(CommandFailed, match=r"was ended by signal 15"):
        await sh("kill -TERM $$")
    with pytest.raises(CommandFailed) as caught:
        await sh("head -c 9000 /dev/zero | tr '\\0' x >&2; exit 1")
    assert len(str(caught.value)) < 600


@pytest.mark.asyncio
async def test_output_beyond_the_limit_is_dropped_and_said_so() -> None:
    policy = CommandPolicy(programs=("sh",), max_output=1000)
    result = await sh("head -c 5000000 /dev/zero | tr '\\0' x; head -c 1000 /dev/zero | tr '\\0' y >&2", policy)
    assert (result["stdout"], result["stderr"], result["truncated"]) == ("x" * 1000, "y" * 1000, True)
    exact = await sh("head -c 1000 /dev/zero | tr '\\0' x", policy)
    assert (len(exact["stdout"]), exact["truncated"]) == (1000, False)


@pytest.mark.asyncio
async def test_output_that_is_not_utf_8_is_shown_all_the_same() -> None:
    assert (await sh("printf 'a\\377b'"))["stdout"] == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.asyncio
async def test_program_that_takes_too_long_is_killed() -> None:
    with pytest.raises(CommandFailed, match=r"did not end within 0\.2 s and was killed"):
        await sh("sleep 1000", timeout=0.2)
    with pytest.raises(CommandFailed, match=r"did not end within 0\.2 s and was killed"):
        await sh("sleep 1000", CommandPolicy(programs=("sh",), timeout=0.2))
    with pytest.raises(CommandFailed, match=r"inputs.timeout: 3600 is greater than the maximum of 60.0"):
        await sh("true", timeout=3600)


async def group_in(fifo: Path) -> int:
    """The process group that a script wrote into a pipe, once it has."""
    return int(await asyncio.to_thread(fifo.read_text))


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.mark.asyncio
@pytest.mark.parametrize("deafness", ["", "trap '' TERM; "])
async def test_cancel_ends_the_whole_group(fifo: Path, deafness: str) -> None:
    """A grandchild too, and processes that do not listen to SIGTERM."""
    script = (
        f"{deafness}sh -c '{deafness.replace(chr(39), chr(34))}sleep 1000; true' & sleep 1000 & echo $$ > {fifo}; wait"
    )
    attempt = asyncio.ensure_future(sh(script))
    group = await group_in(fifo)
    assert len(living_members(group)) >= 3
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert living_members(group) == []


@pytest.mark.asyncio
async def test_second_cancel_does_not_stop_the_killing(fifo: Path) -> None:
    attempt = asyncio.ensure_future(sh(f"trap '' TERM; echo $$ > {fifo}; sleep 1000; sleep 1000"))
    group = await group_in(fifo)
    for _ in range(3):
        attempt.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert living_members(group) == []


@pytest.mark.asyncio
async def test_cancel_while_the_program_starts_leaves_nothing() -> None:
    me = psutil.Process()
    for steps in range(12):
        attempt = asyncio.ensure_future(sh("sleep 1000"))
        for _ in range(steps):
            await asyncio.sleep(0)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert [child for child in me.children(recursive=True) if child.name() in ("sh", "sleep")] == []


@pytest.mark.asyncio
async def test_what_a_program_leaves_in_the_background_is_killed_when_it_ends(
    fifo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: its hold on the output is not waited for."""
    monkeypatch.setattr(command, "DRAIN_TIME", 1000.0)
    attempt = asyncio.ensure_future(sh(f"sleep 1000 & echo $$ > {fifo}; echo done"))
    group = await group_in(fifo)
    assert (await asyncio.wait_for(attempt, 10))["stdout"] == "done\n"
    assert living_members(group) == []


LEFT_THE_GROUP = ("setsid", "setsid setsid", "nohup setsid")  # and so the group is not the way to find it
on_linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="marks are read in /proc")


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@on_linux
@pytest.mark.parametrize("way", LEFT_THE_GROUP)
@pytest.mark.parametrize("ending", ["cancel", "end", "timeout"])
@pytest.mark.asyncio
async def test_what_left_the_group_ends_with_its_command(fifo: Path, way: str, ending: str) -> None:
    """Found from outside: a child that had called setsid survived the cancel of its command."""
    script = (
        f"{way} sh -c 'echo $$ > {fifo}; exec sleep 1000' & {'cat ' + str(fifo) if ending == 'end' else 'sleep 1000'}"
    )
    attempt = asyncio.ensure_future(sh(script, **({"timeout": 3} if ending == "timeout" else {})))
    if ending == "end":
        pid = int((await asyncio.wait_for(attempt, 20))["stdout"])
    else:
        pid = await group_in(fifo)
        if ending == "cancel":
            attempt.cancel()
        with pytest.raises((asyncio.CancelledError, CommandFailed)):
            await attempt
    assert not lives(pid)


@on_linux
@pytest.mark.asyncio
async def test_fifty_commands_that_daemonise_leave_nothing(tmp_path: Path) -> None:
    family = Family()
    for n in range(50):
        os.mkfifo(tmp_path / str(n))
    scripts = [f"setsid sh -c 'echo $$ > {tmp_path}/{n}; exec sleep 1000' & wait" for n in range(50)]
    spec = command_executor_spec(SHELL)
    contexts = [make_context() for _ in scripts]
    for context in contexts:
        context.family = family
    argvs = [{"argv": ["sh", "-c", script]} for script in scripts]
    attempts = [
        asyncio.ensure_future(spec.make().execute(inputs, context))
        for inputs, context in zip(argvs, contexts, strict=True)
    ]
    pids = [await group_in(tmp_path / str(n)) for n in range(50)]
    for attempt in attempts:
        attempt.cancel()
    await asyncio.gather(*attempts, return_exceptions=True)
    assert [pid for pid in pids if lives(pid)] == []


# One that clears its environment is not found; nobody waits for it either.


@pytest.mark.asyncio
async def test_daemon_that_holds_the_output_open_holds_nobody_up(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DRAIN_TIME", 0.05)
    script = f"setsid env -i /bin/sh -c 'echo $$ > {fifo}; exec sleep 1000' & cat {fifo}; echo done"
    result = await asyncio.wait_for(sh(script), 10)
    pid, word = result["stdout"].split()
    psutil.Process(int(pid)).kill()
    assert word == "done"


@pytest.mark.asyncio
async def test_daemon_that_does_not_read_the_input_holds_nobody_up(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "DRAIN_TIME", 0.05)
    script = f"exec 3<&0; setsid env -i /bin/sh -c 'echo $$ > {fifo}; exec sleep 1000' & cat {fifo}"
    result = await asyncio.wait_for(sh(script, stdin="x" * 1_000_000), 10)
    psutil.Process(int(result["stdout"])).kill()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "argv", [["ls"], ["/bin/ls"], ["./sh"], ["../bin/sh"], ["sh "], [" sh"], ["sh\n"], [""], ["SH"]]
)
async def test_program_that_is_not_listed_is_refused(argv: list[str]) -> None:
    with pytest.raises(CommandFailed, match=r"is not allowed; these are: sh$"):
        await run(SHELL, {"argv": argv})


def payloads(canary: Path) -> list[str]:
    """What makes a shell, or a careless reader of arguments, run `touch`."""
    touch = f"touch {canary}"
    wrappers = [
        "{0}",
        ";{0}",
        "; {0};",
        "|{0}",
        "||{0}",
        "&{0}",
        "&&{0}",
        "`{0}`",
        "$({0})",
        "\n{0}\n",
        "\r\n{0}",
        "'{0}",
        '"{0}',
    ]
    wrappers += [
        "';{0};'",
        '";{0};"',
        "';{0} #",
        '";{0} #',
        "){0}",
        "}};{0}",
        "<({0})",
        ">({0})",
        "${{IFS}};{0}",
        "a;{0}#",
    ]
    wrappers += [
        "x\x1b;{0}",
        "x\t;{0}",
        "\\;{0}",
        "%0a{0}",
        "$(`{0}`)",
        "${{x:-$({0})}}",
        "$(({0}))",
        "=cmd|' /C {0}'!A0",
    ]
    wrappers += [
        "-c {0}",
        "--exec={0}",
        "-exec {0} ;",
        "{{{{{0}}}}}",
        "<!--#exec cmd='{0}'-->",
        "() {{ :;}}; {0}",
        "~;{0}",
    ]
    wrappers += ["eval {0}", "exec {0}", "@({0})"]
    shapes = [touch, f"sh -c '{touch}'", f'/bin/sh -c "{touch}"', f"env {touch}", touch.replace(" ", "${IFS}")]
    return [wrapper.format(shape) for shape in shapes for wrapper in wrappers]


@pytest.mark.asyncio
async def test_no_payload_in_an_argument_runs_anything(tmp_path: Path) -> None:
    """200 payloads as argument, as program and as input; each argument arrives byte for byte."""
    canary = tmp_path / "canary"
    found = payloads(canary)
    assert len(set(found)) >= 200
    printf = CommandPolicy(programs=("printf",))
    shown = ""
    for first in range(0, len(found), 20):
        some = found[first : first + 20]
        shown += (await run(printf, {"argv": ["printf", "%s\\n", *some], "stdin": some[0]}))["stdout"]
    assert shown == "".join(f"{payload}\n" for payload in found)
    for payload in found:
        for inputs in ({"argv": [payload]}, {"program": payload}, {"argv": [f"printf{payload}"]}, {"argv": payload}):
            with pytest.raises(CommandFailed):
                await run(printf, inputs)
    assert not canary.exists()


@pytest.mark.asyncio
async def test_argument_with_a_nul_byte_is_refused() -> None:
    with pytest.raises(CommandFailed, match=r"inputs.argv\[1\]"):
        await run(CommandPolicy(programs=("echo",)), {"argv": ["echo", "a\0b"]})


@pytest.mark.parametrize(
    "program", ["no-such-program-anywhere", "bin/sh", "./sh", "/etc/passwd", "/usr", "/no/such/file", ""]
)
def test_policy_with_a_program_that_cannot_be_run_stops_the_start(program: str) -> None:
    with pytest.raises(ConfigurationError, match="command: "):
        CommandPolicy(programs=(program,))


def test_policy_with_a_directory_that_is_none_stops_the_start() -> None:
    for directory in ("relative", "/no/such/directory", "/etc/passwd"):
        with pytest.raises(ConfigurationError, match="command: "):
            CommandPolicy(programs=("sh",), directories=(directory,))


def test_program_is_not_looked_up_in_the_servers_own_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    (tmp_path / "mine").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError):
        CommandPolicy(programs=("mine",))
    assert CommandPolicy(programs=(str(tmp_path / "mine"),)).paths == {str(tmp_path / "mine"): str(tmp_path / "mine")}


@pytest.mark.asyncio
async def test_program_that_cannot_be_executed_fails_the_task(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(OSError):
        await run(CommandPolicy(programs=(str(script),)), {"argv": [str(script)]})


@pytest.mark.asyncio
async def test_uninterrupted_work_is_finished_before_the_cancellation_is_raised() -> None:
    gate, done = asyncio.Event(), []

    async def work() -> str:
        await gate.wait()
        done.append(1)
        return "result"

    outer = asyncio.ensure_future(uninterrupted(work()))
    await asyncio.sleep(0)
    outer.cancel()
    await asyncio.sleep(0)
    assert not outer.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert done == [1]
    assert await uninterrupted(work()) == "result"


def signals_to_a_group_that_stays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that are sent from now on; each says that the group still exists."""
    sent: list[int] = []

    def signal(self: ProcessGroup, number: int) -> bool:
        sent.append(number)
        return True

    monkeypatch.setattr(ProcessGroup, "_signal", signal)
    return sent


@pytest.mark.asyncio
async def test_group_that_nobody_collects_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without an init, zombies stay: the group exists for ever, and nothing in it lives."""
    group = await start([sys.executable, "-c", ""], env={}, mark=Family().new_mark())
    await group.wait()
    sent = signals_to_a_group_that_stays(monkeypatch)
    await asyncio.wait_for(group.close(), 10)
    assert 0 < sent.count(0) < process_group.REAP_LOOKS


@pytest.mark.asyncio
async def test_group_that_cannot_be_killed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that hangs in the kernel dies when it returns from there; nobody can wait for that."""
    group = await start([sys.executable, "-c", ""], env={}, mark=Family().new_mark())
    await group.wait()
    sent = signals_to_a_group_that_stays(monkeypatch)
    monkeypatch.setattr(process_group, "living_members", lambda group: [1])
    monkeypatch.setattr(process_group, "REAP_INTERVAL", 0)
    await asyncio.wait_for(group.close(), 10)
    assert sent.count(0) == process_group.REAP_LOOKS


@pytest.mark.asyncio
@pytest.mark.parametrize(("stdin", "is_large"), [("x", False), ("x" * (CHARACTERS + 1), True)])
async def test_input_of_a_program_is_encoded_beside_the_loop_where_it_is_large(
    stdin: str, is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []

    def watched(text: str) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return encoded_text(text)

    monkeypatch.setattr(command, "encoded_text", watched)
    result = await sh("wc -c", stdin=stdin)
    assert int(result["stdout"]) == len(stdin)
    assert threads == [not is_large]
