"""The settings: where they come from, which of them wins, and how a wrong one is told."""

import inspect
from pathlib import Path
from typing import Any

import msgspec
import pytest

from a2a_server.cli.serve import serve
from a2a_server.config import OPTIONS, Config, effective, load
from core.model.errors import ConfigurationError


def write(directory: Path, text: str, name: str = "a2a-server.toml") -> Path:
    file = directory / name
    file.write_text(text, "utf-8")
    return file


def refusal(directory: Path, *, line: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> str:
    """The one line that the operator reads."""
    with pytest.raises(ConfigurationError) as refused:
        load(line or {}, environ or {}, directory)
    message = str(refused.value)
    assert "\n" not in message
    return message


def test_the_defaults_work_and_are_safe(tmp_path: Path) -> None:
    config = load({}, {"PATH": "/bin"}, tmp_path)
    assert config == Config()
    assert (config.host, config.port, config.insecure) == ("127.0.0.1", 8000, False)
    assert config.commands == () and config.egress_allow == ()


def test_the_command_line_wins_over_variables_and_these_over_the_file(tmp_path: Path) -> None:
    write(tmp_path, "port = 1\nmax_batch = 2\ndrain = 3\n")
    environ = {"A2A_SERVER_PORT": "10", "A2A_SERVER_MAX_BATCH": "20"}
    config = load({"port": 100, "host": None}, environ, tmp_path)
    assert (config.port, config.max_batch, config.drain) == (100, 20, 3.0)
    assert config.host == "127.0.0.1", "an option that was not given says nothing"


def test_the_file_is_the_named_one_else_the_one_that_is_there(tmp_path: Path) -> None:
    write(tmp_path, "port = 1")
    write(tmp_path, "port = 2", "two.toml")
    write(tmp_path, "port = 3", "three.toml")
    environ = {"A2A_SERVER_CONFIG": "two.toml"}
    assert load({}, {}, tmp_path).port == 1
    assert load({}, environ, tmp_path).port == 2
    assert load({"config": str(tmp_path / "three.toml")}, environ, tmp_path).port == 3


def test_variables_are_read_by_the_setting_s_type(tmp_path: Path) -> None:
    environ = {
        "A2A_SERVER_COMMANDS": "/bin/ls, /bin/cat",
        "A2A_SERVER_INSECURE": "Yes",
        "A2A_SERVER_LOG_JSON": "0",
        "A2A_SERVER_SSE_PING": "2.5",
        "A2A_SERVER_MAX_RUNNING_PER_TREE": "",
        "A2A_SERVER_DEFAULT_SKILL": "echo",
        "A2A_SERVER_LOG_LEVEL": "debug",
    }
    config = load({}, environ, tmp_path)
    assert config.commands == ("/bin/ls", "/bin/cat")
    assert (config.insecure, config.log_json, config.sse_ping) == (True, False, 2.5)
    assert (config.max_running_per_tree, config.default_skill, config.log_level) == (None, "echo", "debug")


def test_weights_of_tenants_come_from_a_table_or_a_variable(tmp_path: Path) -> None:
    write(tmp_path, '[tenant_weights]\nacme = 2\n"b, c" = 0.5\n')
    assert load({}, {}, tmp_path).tenant_weights == {"acme": 2.0, "b, c": 0.5}
    environ = {"A2A_SERVER_TENANT_WEIGHTS": "acme=3, other = 0.25"}
    assert load({}, environ, tmp_path).tenant_weights == {"acme": 3.0, "other": 0.25}
    assert load({}, {"A2A_SERVER_TENANT_WEIGHTS": ""}, tmp_path).tenant_weights == {}


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PORT", "x"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", ""),
        ("INSECURE", "maybe"),
        ("SSE_PING", "0"),
        ("SSE_PING", "nan"),
        ("SSE_PING", "inf"),
        ("MAX_BATCH", "0"),
        ("MAX_BATCH", "1.5"),
        ("LOG_LEVEL", "loud"),
        ("MAX_RUNNING_PER_TREE", "none"),
        ("DATABASE", ""),
        ("DATABASE", "mysql://db/x"),
        ("PUBLIC_URL", "example.com"),
        ("PUBLIC_URL", "http://[x"),
        ("PUBLIC_URL", "http://example.com:99999"),
        ("PUBLIC_URL", "http://example.com:x"),
        ("PUBLIC_URL", "https://user:pw@example.com"),
        ("ALLOWED_HOSTS", "https://example.com"),
        ("ALLOWED_HOSTS", "example.com:8000"),
        ("ROOT_PATH", "agents"),
        ("ROOT_PATH", "/agents/"),
        ("ROOT_PATH", "//agents"),
        ("ROOT_PATH", "/agents?x"),
        ("TRUSTED_PROXIES", "proxy.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("ALLOWED_ORIGINS", "app.example"),
        ("ALLOWED_ORIGINS", "*"),
        ("CORS_ORIGINS", "https://app.example/page"),
        ("CORS_ORIGINS", "null"),
        ("MAX_RATE", "0"),
        ("MAX_RATE", "nan"),
        ("MAX_RATE", "inf"),
        ("MAX_CALLS", "49"),
        ("MAX_RUNNING_PER_CALLER", "0"),
        ("MAX_TASK_SECONDS", "-1"),
        ("MAX_THREADS", "0"),
        ("TENANT_WEIGHTS", "acme"),
        ("TENANT_WEIGHTS", "acme=heavy"),
        ("TENANT_WEIGHTS", "acme=0"),
        ("TENANT_WEIGHTS", "acme=1001"),
        ("WATCHDOG", "-1"),
        ("TLS_KEY", "key.pem"),
        ("TLS_KEY_PASSWORD_FILE", "password"),
        ("TLS_CA", "ca.pem"),
        ("TLS_CLIENT_AUTH", "maybe"),
        ("TLS_CLIENT_AUTH", "required"),
    ],
)
def test_a_wrong_value_names_its_variable(tmp_path: Path, variable: str, text: str) -> None:
    name = "A2A_SERVER_" + variable
    assert refusal(tmp_path, environ={name: text}).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"cors_origins": ["*"], "cors_credentials": True}, "--cors-credentials"),
        ({"tls_cert": "c.pem", "tls_ca": "ca.pem"}, "--tls-ca"),
        ({"tls_cert": "c.pem", "tls_client_auth": "optional"}, "--tls-client-auth"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    assert refusal(tmp_path, line=settings).startswith(f"{named}: ")


def test_a_wrong_value_names_its_option_or_its_place_in_the_file(tmp_path: Path) -> None:
    assert refusal(tmp_path, line={"max_batch": 0}) == "--max-batch: expected `integer` >= 1"
    write(tmp_path, 'port = "8000"')
    assert refusal(tmp_path) == "port in a2a-server.toml: expected `integer`, got `string`"


def test_the_option_that_is_named_is_one_that_serve_has(tmp_path: Path) -> None:
    """Most are called as their setting; an option that is given once for each item is not."""
    parameters = inspect.signature(serve).parameters
    settings = {field.name for field in msgspec.structs.fields(Config)} & set(parameters) - {"executors"}
    assert settings > set(OPTIONS)
    for name in settings:
        (option,) = parameters[name].annotation.__metadata__
        given = [each for each in (option.default, *(option.param_decls or ())) if str(each).startswith("--")]
        assert refusal(tmp_path, line={name: object()}).startswith(f"{given[0] if given else _usual(name)}: "), name


def _usual(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("log_level", "loud", "invalid enum value 'loud'; it is one of debug, info, warning, error"),
        ("tls_client_auth", "maybe", "invalid enum value 'maybe'; it is one of none, optional, required"),
        ("card_mode", "x", "invalid enum value 'x'; it is one of auto, strict, hybrid"),
        ("error_texts", "x", "invalid enum value 'x'; it is one of full, type, none"),
        ("auth", ["keys", "x"], "invalid enum value 'x'; it is one of keys, jwt"),
        ("insecure", "maybe", "must be true or false"),
        ("log_json", 1, "must be true or false"),
    ],
)
def test_a_word_that_is_none_of_a_setting_is_told_with_those_that_are(
    tmp_path: Path, name: str, value: Any, told: str
) -> None:
    assert refusal(tmp_path, line={name: value}) == f"{_usual(name)}: {told}"
    if isinstance(value, str):
        assert refusal(tmp_path, environ={f"A2A_SERVER_{name.upper()}": value}).endswith(told)


def test_an_unknown_setting_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    assert refusal(tmp_path, environ={"A2A_SERVER_PROT": "1"}) == (
        "A2A_SERVER_PROT: no such setting; did you mean port?"
    )
    assert refusal(tmp_path, line={"zzz": 1}) == "--zzz: no such setting"
    write(tmp_path, "databse = 'sqlite://'")
    assert refusal(tmp_path) == "databse in a2a-server.toml: no such setting; did you mean database?"


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path, line={"config": "none.toml"})
    write(tmp_path, "port = ")
    assert "is not TOML" in refusal(tmp_path)
    (tmp_path / "a2a-server.toml").write_bytes(b"\xff")
    assert "is not TOML" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path, line={"config": "."})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_listening_beyond_loopback_needs_a_decision(tmp_path: Path, host: str) -> None:
    assert refusal(tmp_path, line={"host": host}).startswith("--host: ")
    assert load({"host": host, "insecure": True}, {}, tmp_path).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "localhost", "::1"])
def test_listening_on_loopback_does_not(tmp_path: Path, host: str) -> None:
    assert load({"host": host}, {}, tmp_path).host == host


def test_what_is_shown_has_no_passwords() -> None:
    shown = effective(Config(database="sqlite+x://ann:pa:ss@w@host/db", commands=("/bin/ls",)))
    assert shown["database"] == "sqlite+x://ann:***@host/db"
    assert shown["commands"] == ["/bin/ls"]
    assert effective(Config())["database"] == "sqlite:///a2a-server.db"
    assert set(shown) == set(Config.__struct_fields__)


def test_the_names_a_host_header_may_have() -> None:
    assert Config().hosts() == {"127.0.0.1", "localhost", "::1"}
    config = Config(host="0.0.0.0", allowed_hosts=("A.example", "[fd00::1]"), public_url="https://b.example:444/x")
    assert config.hosts() == {"127.0.0.1", "localhost", "::1", "a.example", "fd00::1", "b.example"}
    assert "box.local" in Config(host="box.local").hosts()


def test_the_address_that_callers_use() -> None:
    assert Config().url() == "http://127.0.0.1:8000/"
    assert Config(port=0).url(4711) == "http://127.0.0.1:4711/"
    assert Config(host="::1").url() == "http://[::1]:8000/"
    assert Config(host="0.0.0.0").url() == "http://localhost:8000/"
    assert Config(public_url="https://a.example/agent").url(4711) == "https://a.example/agent/"
    assert Config(host="::1", public_url="https://a.example").address(4711) == "[::1]:4711"
    assert Config(host="0.0.0.0").address(8000) == "0.0.0.0:8000"
    assert Config(root_path="/agents/one").url() == "http://127.0.0.1:8000/agents/one/"
    assert Config(tls_cert="c.pem", host="::1").url() == "https://[::1]:8000/"
    assert Config(public_url="https://a.example", root_path="/one").url() == "https://a.example/one/"
    assert Config(public_url="https://a.example/agents/", root_path="/one").url() == "https://a.example/agents/"


def test_a_server_is_exposed_when_others_can_reach_it() -> None:
    assert not Config().is_exposed
    assert Config(public_url="https://a.example").is_exposed
    assert Config(host="0.0.0.0").is_exposed


def test_a_task_is_kept_as_long_as_the_key_that_leads_to_it(tmp_path: Path) -> None:
    """Else the same request would make a second task within the time for which it must not."""
    with pytest.raises(ConfigurationError, match=r"--delete-after: must not be less than idempotency_keep, 86400"):
        load({"delete_after": 3600.0}, {}, tmp_path)
    assert load({"delete_after": 3600.0, "idempotency_keep": 3600.0}, {}, tmp_path).delete_after == 3600
    assert load({"delete_after": 0.0, "compact_after": 0.0}, {}, tmp_path).delete_after == 0


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 50),
        ({"auth": ("keys",)}, 25),
        ({"auth": ("keys",), "push_concurrency": 1}, 1),
        ({"auth": ("keys",), "push_concurrency_per_caller": 40}, 40),
        ({"push_concurrency_per_caller": 3}, 3),
    ],
)
def test_one_callers_share_of_deliveries_is_half_where_there_are_others(settings: dict[str, Any], share: int) -> None:
    assert Config(**settings).deliveries_per_caller == share
