"""The command line, in this process and as real processes, against real servers."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from rich.console import Console

from a2a_server.cli import answers, main
from a2a_server.cli.answers import ServerError, server_sent
from a2a_server.cli.client import Client
from a2a_server.cli.output import Failure, clean
from a2a_server.cli.resumption import Resumption
from a2a_server.cli.run import _handled
from a2a_server.cli.view import LiveScreen, TreeView, drawing, event_line, tree_view
from core.executors.registry import default_registry
from tests.acceptance.process import EXECUTORS, ROOT, ServerProcess

TREES = ROOT / "examples" / "trees"


class Done:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Runs commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        known, modules, path = set(default_registry.ids()), set(sys.modules), list(sys.path)
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        for executor_id in set(default_registry.ids()) - known:  # a command is a process of its own
            default_registry.unregister(executor_id)
        for name in set(sys.modules) - modules:
            if getattr(sys.modules[name], "__file__", None) in self._of_users(path):
                del sys.modules[name]
        sys.path[:] = path
        captured = self._capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    def _of_users(self, path: list[str]) -> set[str]:
        """The files in the folders that a command put on the path."""
        return {str(file) for folder in set(sys.path) - set(path) for file in Path(folder).glob("*.py")}


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """The command line, away from this checkout and with no settings in its environment."""
    for name in list(os.environ):
        if name.startswith("A2A_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LEDGER", str(tmp_path / "ledger"))
    monkeypatch.chdir(tmp_path)
    return Cli(capsys)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path_factory.mktemp("server")).start()
    try:
        yield process
        assert process.terminate() == 0
    finally:
        process.close()


def tree_file(folder: Path, tasks: Any) -> str:
    (file := folder / "tree.json").write_text(json.dumps(tasks))
    return str(file)


def here(cli: Cli, tasks: Any, *arguments: str) -> Done:
    """`run` of these tasks in a core of its own, with the executors of the acceptance tests."""
    return cli("run", tree_file(Path.cwd(), tasks), "-e", str(EXECUTORS), *arguments)


# What is wrong is one line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nonsense"], "nonsense"),
        (["run"], "TREE"),
        (["run", "x.json", "--wrong"], "--wrong"),
        (["run", "missing.json"], "missing.json"),
        (["run", "missing.json", "--url", "http://127.0.0.1:9/", "--database", "sqlite:///x.db"], "--database"),
        (["tasks", "list", "--limit", "0"], "limit"),
        (["tasks", "list", "-o", "xml"], "xml"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(cli: Cli, arguments: list[str], told: str) -> None:
    done = cli(*arguments)

    assert done.code == 2
    assert done.err.startswith("a2a-server: ")
    assert done.err.count("\n") == 1
    assert told in done.err
    assert "secret" not in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["config", "--config", "missing.toml"], "missing.toml"),
        (["serve", "--host", "0.0.0.0"], "--insecure"),
        (["serve", "--public-url", "http://[x"], "--public-url"),
        (["card", "missing.py"], "missing.py"),
        (["migrate", "--database", "mysql://u:secret@h/d"], "SQLite"),
    ],
)
def test_wrong_configuration_is_one_line_and_exit_code_78(cli: Cli, arguments: list[str], told: str) -> None:
    """sysexits' EX_CONFIG, so that a supervisor knows that starting again will not help."""
    done = cli(*arguments)

    assert (done.code, done.err.count("\n")) == (78, 1)
    assert told in done.err
    assert "secret" not in done.err


def test_no_server_is_one_line_and_exit_code_1(cli: Cli) -> None:
    done = cli("tasks", "list", "--url", "http://127.0.0.1:9")

    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "a2a-server serve" in done.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "wrong.json:1:2: "),
        ("3", "has no tasks"),
        ('[{"name": "noop", "priority": "high"}]', "tasks[0].priority"),
        ('[{"name": "nobody"}]', "unknown executor 'nobody'"),
    ],
)
def test_a_wrong_tree_is_exit_code_2_and_says_where(cli: Cli, tmp_path: Path, content: str, told: str) -> None:
    (file := tmp_path / "wrong.json").write_text(content)

    done = cli("run", str(file))

    assert done.code == 2
    assert told in done.err


def test_help_lists_every_command(cli: Cli) -> None:
    assert all(name in cli().out for name in ("serve", "send", "run", "watch", "tasks", "card", "migrate", "config"))


# Without a server


def test_version_is_printed(cli: Cli) -> None:
    assert cli("version").out.startswith("a2a-server 0.")
    assert "python" in cli("version", "-o", "json").json()


def test_config_prints_what_is_in_force(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a2a-server.toml").write_text('port = 1234\ndefault_skill = "x"\n')
    monkeypatch.setenv("A2A_SERVER_PORT", "4321")

    assert cli("config", "-o", "json").json()["port"] == 4321
    assert re.search(r'^default_skill += "x"$', cli("config").out, re.MULTILINE)


def test_printed_config_is_a_config_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "a2a-server.toml").write_text('[tenant_weights]\nacme = 2\n"b \\"c" = 0.5\n')
    (tmp_path / "saved.toml").write_text(cli("config").out)

    assert cli("config", "--config", "saved.toml").out == cli("config").out


def test_card_without_a_server_is_that_of_the_one_to_be(cli: Cli) -> None:
    card = cli("card", str(EXECUTORS), "-o", "json").json()

    assert {"greet", "system_info_executor"} <= {skill["id"] for skill in card["skills"]}
    assert "skill greet" in cli("card", str(EXECUTORS)).out


def test_migrate_makes_the_database_and_may_be_repeated(cli: Cli, tmp_path: Path) -> None:
    first, second = (cli("migrate", "--database", "sqlite:///new.db", "-o", "json").json() for _ in range(2))

    assert first == second
    assert Path(first["database"]) == tmp_path / "new.db"
    assert (tmp_path / "new.db").exists()


def test_migrate_refuses_what_is_no_database(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database " * 100)

    assert cli("migrate", "--database", "sqlite:///text.db").code == 1


# run, here


def test_run_shows_each_event_and_the_result(cli: Cli) -> None:
    done = cli("run", str(TREES / "machine.json"))

    assert done.code == 0
    assert done.out.count("task_start") == 4
    assert "final: completed" in done.out
    assert '"memory":' in done.out.splitlines()[-1]


def test_run_reads_yaml_and_tolerates_an_optional_failure(cli: Cli) -> None:
    done = cli("run", str(TREES / "fallback.yaml"), "-o", "json")

    tasks = {task["ref"]: task for task in done.json()["children"]}
    assert done.code == 0
    assert {ref: task["status"] for ref, task in tasks.items()} == {
        "download": "failed",
        "instead": "completed",
        "answer": "completed",
    }


@pytest.mark.parametrize("key", ["on", '"on"', "On", "required"])
def test_the_word_on_is_a_key_in_yaml_too(cli: Cli, tmp_path: Path, key: str) -> None:
    """YAML 1.1 takes it for true."""
    tree = tmp_path / "tree.yaml"
    value = "false" if key == "required" else "any"
    second = f"  - {{name: effect, parent_id: r, dependencies: [{{id: b, {key}: {value}}}]}}"
    tree.write_text(f"tasks:\n  - {{id: r, name: all}}\n  - {{id: b, name: boom, parent_id: r}}\n{second}\n")
    if key == "On":
        assert (
            "dependencies[0].On: unknown field; the known ones are: id, required, on"
            in cli("run", str(tree), "-e", str(EXECUTORS)).err
        )
    else:
        assert cli("run", str(tree), "-e", str(EXECUTORS)).code == 0


def test_run_reads_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"name": "system_info_executor", "inputs": {"resource": "cpu"}}'))

    assert cli("run", "-", "-o", "json").json()["status"] == "completed"


def test_run_of_a_failing_tree_exits_1_and_says_why(cli: Cli) -> None:
    done = here(cli, [{"name": "all", "id": "r"}, {"name": "boom", "parent_id": "r"}])

    assert done.code == 1
    assert "boom failed:" in done.out


def test_run_of_a_tree_that_asks_exits_4_and_says_what_to_do_next(cli: Cli) -> None:
    """Found from outside: `run` of a tree with a question ended without a word."""
    done = here(cli, [{"name": "interview"}])

    assert done.code == 4
    assert "input_required" in done.out
    assert done.err.count("\n") == 1 and "--database" in done.err and "--url" in done.err


def test_run_there_of_a_tree_that_asks_gives_the_commands_that_go_on(cli: Cli, server: ServerProcess) -> None:
    done = cli("run", tree_file(Path.cwd(), [{"name": "interview"}]), "--url", server.url)

    assert done.code == 4
    answer, watch = re.findall(r"a2a-server ((?:tasks answer|watch) [^;\n]*)", done.err)
    for _ in range(5):
        if cli(*answer.replace("ANSWER", "fine").split()).code:
            break
    assert cli(*watch.split()).code == 0


def test_run_keeps_the_tree_only_in_the_database_it_is_given(cli: Cli, tmp_path: Path) -> None:
    here(cli, [{"name": "noop"}])
    assert list(tmp_path.glob("*.db")) == []

    assert here(cli, [{"name": "noop"}], "--database", "sqlite:///kept.db").code == 0
    assert (tmp_path / "kept.db").exists()


TALKATIVE = """
import os
import subprocess
import sys
from core import executor

print("loaded")

@executor("coroutine")
async def coroutine(inputs):
    print("coroutine")
    subprocess.run(["echo", "child"], check=True)
    os.write(1, b"descriptor\\n")

@executor("thread")
def thread(inputs):
    print("thread")

@executor("process", isolation="process")
def process(inputs):
    print("process")
"""


def test_run_as_json_leaves_stdout_to_the_json_whatever_executors_print(tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    names = ["coroutine", "thread", "process"]
    tasks = [{"id": "all", "name": "all"}, *({"name": name, "parent_id": "all"} for name in names)]
    done = subprocess.run(
        [sys.executable, "-m", "a2a_server", "run", tree_file(tmp_path, tasks), "-e", "talkative.py", "-o", "json"],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip

    assert json.loads(done.stdout)["tree_status"] == "completed", done.stderr
    assert {"loaded", "child", "descriptor", *names} <= set(done.stderr.splitlines())


def test_run_as_json_prints_its_document_after_what_was_printed_in_this_process(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)

    done = cli("run", tree_file(tmp_path, [{"name": "thread"}]), "-e", "talkative.py", "-o", "json")

    assert done.json()["status"] == "completed"
    assert "thread" in done.err


def hear_ctrl_c() -> None:
    """What a shell starts in the background, as these tests may be, ignores it, and so do its children."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "code", "reason"),
    [
        (signal.SIGINT, 130, "interrupted by Ctrl-C"),
        (signal.SIGTERM, 143, "interrupted by SIGTERM"),
        (signal.SIGHUP, 129, "interrupted by SIGHUP"),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
@pytest.mark.parametrize("remote", [False, True], ids=["here", "there"])
def test_a_signal_that_ends_run_cancels_what_it_started(
    tmp_path: Path, server: ServerProcess, remote: bool, number: int, code: int, reason: str
) -> None:
    """Found from outside: `run` died at SIGTERM or SIGHUP and left its command running."""
    where = ["--url", server.url] if remote else ["-e", str(EXECUTORS)]
    process = subprocess.Popen(
        [sys.executable, "-m", "a2a_server", "run", tree_file(tmp_path, [{"name": "hang"}]), *where],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert process.stdout is not None
    assert "task_start" in process.stdout.readline()

    process.send_signal(number)
    if number == signal.SIGHUP:  # a terminal that is closed sends it twice, from the shell and from the kernel
        process.send_signal(number)
    _, err = process.communicate(timeout=20)

    assert process.returncode == code
    assert "cancelled" in err
    assert "Traceback" not in err
    if remote:
        task = server.call("tasks.list", {"name": "hang"})[0]
        assert (task["status"], task["error"]) == ("cancelled", reason)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_ignored_stays_ignored(number: int) -> None:
    """As `nohup` has it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with _handled(lambda number: signal.signal(number, signal.SIG_DFL)):
            assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_ctrl_c_exits_130_also_when_the_server_cannot_be_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(self: Client, method: str, params: Any) -> Any:
        if method == "tasks.cancel":
            raise Failure("lost the server")
        return {"id": "r", "name": "hang", "executor": "hang", "status": "pending", "children": []}

    def interrupted(self: Client, task_id: str, after: int = 0) -> Iterator[Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "call", call)
    monkeypatch.setattr(Client, "follow", interrupted)

    done = cli("run", tree_file(tmp_path, [{"name": "hang"}]), "--url", "http://127.0.0.1:9")

    assert done.code == 130
    assert "not cancelled: lost the server" in done.err


def test_run_on_a_terminal_shows_a_live_tree(tmp_path: Path) -> None:
    """On a pseudo terminal the same lines are drawn again and again, with a bar below."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "a2a_server", "run", str(TREES / "machine.json")],
        stdout=terminal, stderr=terminal, cwd=tmp_path, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 65536):
            shown += chunk
    except OSError:  # Linux: the last writer has closed it
        pass
    os.close(controller)

    assert process.wait(timeout=20) == 0
    assert b"100%" in shown
    assert b"3 completed" in shown or b"4 completed" in shown
    assert b"task_start" not in shown


# serve


def test_serve_as_json_prints_one_object_when_it_is_ready(tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    process = subprocess.Popen(
        [sys.executable, "-m", "a2a_server", "serve", "talkative.py", "--port", "0", "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    try:
        health = httpx2.get(f"{ready['url']}healthz", trust_env=False)
        assert (health.status_code, ready["pid"]) == (200, process.pid)
        assert ready["url"] == f"http://{ready['address']}/"
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=40)

    assert (process.returncode, out) == (0, "")
    assert "loaded" in err


@pytest.mark.parametrize("command", [["send"], ["watch"], ["tasks", "events"]])
def test_help_of_streaming_commands_says_that_json_comes_line_by_line(cli: Cli, command: list[str]) -> None:
    assert "one object per line" in " ".join(cli(*command, "--help").out.split())


# With a server


def test_run_there_is_like_run_here(cli: Cli, server: ServerProcess) -> None:
    done = cli("run", str(TREES / "machine.json"), "--url", server.url)

    assert done.code == 0
    assert done.out.count("task_start") == 4
    assert "final: completed" in done.out


def test_run_there_of_a_wrong_tree_names_the_field(cli: Cli, server: ServerProcess, tmp_path: Path) -> None:
    done = cli("run", tree_file(tmp_path, [{"name": "nobody"}]), "--url", server.url)

    assert done.code == 1
    assert "tree.json:1:3: tasks[0].name: unknown executor 'nobody'" in done.err


def test_send_streams_a_greeting(cli: Cli, server: ServerProcess) -> None:
    done = cli("send", "Ada", "--skill", "greet", "--url", server.url)

    assert done.code == 0
    assert "Ada" in done.out
    assert "final: completed" in done.out


def test_send_without_a_skill_lists_the_skills(cli: Cli, server: ServerProcess) -> None:
    done = cli("send", "Ada", "--url", server.url)

    assert done.code == 1
    assert "greet" in done.err
    assert done.err.count("\n") == 1


def test_send_of_a_file_with_tasks_runs_the_tree(cli: Cli, server: ServerProcess) -> None:
    frames = cli("send", str(TREES / "machine.json"), "--url", server.url, "-o", "json").lines()

    names = {frame["artifactUpdate"]["artifact"]["name"] for frame in frames if "artifactUpdate" in frame}
    assert names == {"report", "cpu", "memory", "disk"}


def test_send_of_a_text_file_sends_its_text(cli: Cli, server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "name.txt").write_text("Grace")

    assert "Grace" in cli("send", "name.txt", "--skill", "greet", "--url", server.url).out


def test_a_question_is_answered_with_the_task_id(cli: Cli, server: ServerProcess) -> None:
    asked = cli("send", "hello", "--skill", "interview", "--url", server.url)
    task_id = asked.out.partition("send --task ")[2].split()[0]
    assert asked.code == 4

    codes = []
    while len(codes) < 5 and (not codes or codes[-1] == 4):
        codes.append(cli("send", "an answer", "--task", task_id, "--url", server.url).code)

    assert codes[-1] == 0


def test_watch_repeats_the_log_and_exits_by_the_outcome(cli: Cli, server: ServerProcess) -> None:
    failed = server.call("tasks.execute", {"tasks": [{"name": "boom"}], "wait": True})

    done = cli("watch", failed["id"], "--url", server.url, "-o", "json")

    assert done.code == 1
    assert [event["type"] for event in done.lines()] == ["task_start", "task_failed", "final"]


def test_watch_after_the_last_event_ends_at_once(cli: Cli, server: ServerProcess) -> None:
    ended = server.call("tasks.execute", {"tasks": [{"name": "noop"}], "wait": True})
    last = server.log_of(ended["id"])[-1]["seq"]

    done = cli("watch", ended["id"], "--after", str(last), "--url", server.url)

    assert (done.code, done.out) == (0, "")


def test_tasks_commands_show_cancel_and_delete(cli: Cli, server: ServerProcess) -> None:
    url = ("--url", server.url)
    tree = server.call("tasks.create", {"tasks": [{"id": "r", "name": "pair"}, {"name": "hang", "parent_id": "r"}]})
    task_id, child = tree["id"], tree["children"][0]["id"]

    assert task_id in cli("tasks", "list", "--name", "pair", *url).out
    assert child in [task["id"] for task in cli("tasks", "list", "--all", "-o", "json", *url).json()]
    assert cli("tasks", "get", child, "-o", "json", *url).json()["status"] == "pending"
    assert "  hang" in cli("tasks", "tree", child, *url).out
    assert cli("tasks", "tree", task_id, "-o", "json", *url).json()["children"][0]["id"] == child

    server.call("tasks.execute", {"task_id": task_id})
    assert cli("tasks", "delete", task_id, *url).code == 1
    assert cli("tasks", "cancel", task_id, "--reason", "enough", *url).code == 0
    assert "error" in (shown := cli("tasks", "get", child, *url).out) and "enough" in shown
    assert [line["type"] for line in cli("tasks", "events", task_id, "-o", "json", *url).lines()][-1] == "final"
    assert "task_cancelled" in cli("tasks", "events", task_id, *url).out
    assert cli("tasks", "delete", task_id, *url).code == 0
    assert cli("tasks", "get", task_id, *url).code == 1


def test_cancel_of_a_completed_task_exits_1(cli: Cli, server: ServerProcess) -> None:
    ended = server.call("tasks.execute", {"tasks": [{"name": "noop"}], "wait": True})

    done = cli("tasks", "cancel", ended["id"], "--url", server.url)

    assert done.code == 1
    assert "cannot cancel" in done.out


def test_card_of_a_server(cli: Cli, server: ServerProcess) -> None:
    assert f"at {server.url}" in cli("card", "--url", server.url).out


def test_a_reader_that_has_enough_ends_the_command_quietly(server: ServerProcess) -> None:
    ended = server.call("tasks.execute", {"tasks": [{"name": "noop"}], "wait": True})
    process = subprocess.Popen(
        [sys.executable, "-m", "a2a_server", "tasks", "get", ended["id"], "--url", server.url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()

    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 1
    process.stderr.close()


# The client


def served(*answers: httpx2.Response) -> Client:
    """A client whose server gives these answers, one a request."""
    waiting = list(answers)
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return waiting.pop(0)

    server = Client(
        "http://test/", transport=httpx2.MockTransport(answer), resumption=Resumption(pause=lambda seconds: None)
    )
    server.requests = requests  # type: ignore[attr-defined]
    return server


def stream_of(*events: str) -> httpx2.Response:
    headers = {"Content-Type": "text/event-stream"}
    return httpx2.Response(200, headers=headers, content="".join(f"{event}\n\n" for event in events))


def test_a_broken_stream_goes_on_after_the_last_event() -> None:
    server = served(
        stream_of('id: 1\ndata: {"n": 1}', 'id: 2\ndata: {"n": 2}'),
        httpx2.Response(503, json={"error": {"code": -32051, "message": "starting"}}),
        stream_of('id: 3\ndata: {"n": 3}', 'data: {"type": "stream_end"}'),
    )

    assert [frame.data["n"] for frame in server.follow("t")] == [1, 2, 3]
    resumed = [request.headers.get("Last-Event-ID") for request in server.requests]  # type: ignore[attr-defined]
    assert resumed == [None, "2", "2"]


def test_a_server_that_stays_away_is_given_up() -> None:
    server = served(*(httpx2.Response(503) for _ in range(20)))

    with pytest.raises(Failure, match="lost the server"):
        list(server.follow("t"))


def test_an_unknown_task_is_not_asked_for_again() -> None:
    server = served(httpx2.Response(404, json={"error": {"code": -32001, "message": "Task t not found"}}))

    with pytest.raises(ServerError, match="Task t not found"):
        list(server.follow("t"))


def test_an_answer_that_is_no_json_rpc_is_a_clear_failure() -> None:
    with pytest.raises(Failure, match="HTTP 502"):
        served(httpx2.Response(502, text="<html>bad gateway</html>")).call("tasks.list", {})


def test_events_are_read_whatever_the_chunks() -> None:
    """Comments are skipped, CRLF is a line end, and U+2028 within a text is not."""
    stream = ': ping\r\n\r\nid: 7\r\ndata: {"a": "x\u2028y"}\r\n\r\ndata: 1\ndata: 2\n\n'.encode()

    for size in (1, 3, len(stream)):
        chunks = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert list(server_sent(streamed(chunks))) == [("7", '{"a": "x\u2028y"}'.encode()), ("7", b"1\n2")]


def test_an_event_without_its_end_is_none_and_an_id_alone_says_nothing() -> None:
    assert list(server_sent(streamed([b"id: 7\n\nretry: 5\n\ndata: cut off"]))) == []


def test_an_event_without_bounds_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_EVENT", 100)
    with pytest.raises(Failure, match=r"cannot be read: .* 100 byte limit"):
        list(server_sent(streamed([b"data: " + b"x" * 50] * 3)))


def streamed(chunks: list[bytes]) -> httpx2.Response:
    """A response with this stream."""
    request = httpx2.Request("GET", "http://server")
    return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, content=iter(chunks), request=request)


# The view


def event(kind: str, task_id: str = "t", **fields: Any) -> dict[str, Any]:
    return {"type": kind, "task_id": task_id, "root_task_id": "r", "name": task_id, **fields}


def test_a_view_follows_its_events() -> None:
    view = TreeView("r")
    for each in (
        event("task_start", "a", status="in_progress"),
        event("progress", "a", status="in_progress", progress=0.5, message="half"),
        event("task_start", "b", status="in_progress"),
        event("task_completed", "b", status="completed", progress=1.0),
    ):
        view.apply(each)

    assert view.progress == 0.75
    assert view.counts == {"in_progress": 1, "completed": 1}
    assert view.nodes["a"].note == "half"
    assert view.outcome == "in_progress"


def test_a_tree_only_waits_when_nothing_else_runs() -> None:
    view = TreeView("r")
    view.apply(event("task_start", "a", status="in_progress"))
    view.apply(event("input_required", "b", status="input_required", question=[{"text": "Who?"}]))
    assert not view.only_waits

    view.apply(event("task_completed", "a", status="completed"))
    assert view.only_waits
    assert view.outcome == "input_required"


def test_a_tree_larger_than_the_screen_shows_what_needs_attention() -> None:
    children = [{"id": str(n), "name": f"task{n}", "executor": "x", "status": "completed"} for n in range(500)]
    children[400]["status"] = "failed"
    view = tree_view({"id": "r", "name": "root", "executor": None, "status": "in_progress", "children": children})

    console = Console(width=80, height=20, file=io.StringIO())
    console.print(drawing(view, 20))

    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert len(text.splitlines()) <= 20
    assert "task400" in text
    assert "more tasks" in text


def test_a_live_screen_draws_the_last_event() -> None:
    console = Console(width=80, height=20, file=io.StringIO(), force_terminal=True)
    with LiveScreen(view := TreeView("r"), console) as shown:
        shown.show(event("task_completed", "a", status="completed", progress=1.0))

    assert view.nodes["a"].status == "completed"
    assert "100%" in console.file.getvalue()  # type: ignore[attr-defined]


def test_texts_of_others_cannot_drive_the_terminal() -> None:
    line = event_line(event("task_failed", "\x1b[2Jname", status="failed", error="a\nb\x1b]0;title\x07"))

    assert "\x1b" not in line and "\n" not in line and "\x07" not in line
    assert clean(" a\tb\u202e ") == "a b"
