"""Variables that Kubernetes and Docker make for services are no settings."""

import logging
from pathlib import Path

import pytest
from msgspec.structs import fields

from a2a_server.config import PREFIX, Config, load
from a2a_server.process.service_links import service_links, told_of
from core.model.errors import ConfigurationError

KUBERNETES = {
    "A2A_SERVER_SERVICE_HOST": "10.96.0.10",
    "A2A_SERVER_SERVICE_PORT": "8000",
    "A2A_SERVER_SERVICE_PORT_HTTP_METRICS": "8000",
    "A2A_SERVER_PORT": "tcp://10.96.0.10:8000",
    "A2A_SERVER_PORT_8000_TCP": "tcp://10.96.0.10:8000",
    "A2A_SERVER_PORT_8000_TCP_PROTO": "tcp",
    "A2A_SERVER_PORT_8000_TCP_PORT": "8000",
    "A2A_SERVER_PORT_8000_TCP_ADDR": "10.96.0.10",
}
OTHER_SERVICE = {name.replace("A2A_SERVER_", "A2A_SERVER_DB_2_"): value for name, value in KUBERNETES.items()}
OTHER_KINDS = {
    "A2A_SERVER_PORT_53_UDP": "udp://10.96.0.10:53",
    "A2A_SERVER_PORT_9_SCTP_ADDR": "10.96.0.10",
    "A2A_SERVER_DNS_PORT": "udp://[fd00::1]:53",
}


@pytest.mark.parametrize("environ", [KUBERNETES, OTHER_SERVICE, OTHER_KINDS], ids=["own", "other", "kinds"])
def test_service_links_are_ignored_with_one_line(
    environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Found from outside: a Service named a2a-server kept the server from starting in Kubernetes."""
    with caplog.at_level(logging.WARNING):
        assert load({}, environ, tmp_path) == Config()

    (told,) = caplog.messages
    assert sorted(environ)[0] in told and f"{len(environ) - 1} more" in told and "Kubernetes" in told


def test_settings_beside_them_hold(tmp_path: Path) -> None:
    environ = {**KUBERNETES, "A2A_SERVER_HOST": "127.0.0.2"}

    assert load({}, environ, tmp_path).host == "127.0.0.2"
    assert load({"port": 9}, environ, tmp_path).port == 9


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("A2A_SERVER_PORT", "80O0"),
        ("A2A_SERVER_PORT", "tcp:8000"),
        ("A2A_SERVER_DB_PORT", "8000"),
        ("A2A_SERVER_SERVICE", "10.0.0.1"),
        ("A2A_SERVER_PORT_HTTP", "8000"),
        ("A2A_SERVER_HOSTT", "10.0.0.1"),
    ],
)
def test_what_has_another_form_is_still_a_mistake(variable: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        load({}, {variable: value}, tmp_path)


def test_no_setting_of_ours_has_the_form_of_a_link() -> None:
    names = {f"{PREFIX}{field.name.upper()}": "1" for field in fields(Config)}

    assert service_links(names, PREFIX) == []


def test_one_alone_is_told_without_a_number() -> None:
    assert "more" not in told_of(["A2A_SERVER_PORT"])
