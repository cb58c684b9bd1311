"""Settings of who may call."""

from pathlib import Path

import pytest

from a2a_server.config import Config, load
from core.model.errors import ConfigurationError
from tests.a2a_server.auth.tokens import RSA, jwks

JWT = {"auth": ["jwt"], "jwt_issuer": "https://issuer.example", "jwt_audience": ["me"]}


def refusal(folder: Path, **changes: object) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load(JWT | changes, {}, folder)
    return str(refused.value)


def test_nobody_is_asked_by_default() -> None:
    assert not Config().identifies_callers


def test_both_kinds_can_be_set_in_the_environment(tmp_path: Path) -> None:
    environ = {
        "A2A_SERVER_AUTH": "keys, jwt",
        "A2A_SERVER_JWT_ISSUER": "https://issuer.example/",
        "A2A_SERVER_JWT_AUDIENCE": "me,you",
        "A2A_SERVER_JWT_ALGORITHMS": "EdDSA",
    }
    config = load({}, environ, tmp_path)
    assert config.auth == ("keys", "jwt")
    assert config.jwt_audience == ("me", "you")
    assert config.discovery_url == "https://issuer.example/.well-known/openid-configuration"


def test_with_authentication_other_machines_may_call(tmp_path: Path) -> None:
    assert load({"host": "0.0.0.0", "auth": ["keys"]}, {}, tmp_path).identifies_callers


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("auth", ["password"]),
        ("jwt_issuer", None),
        ("jwt_issuer", ""),
        ("jwt_issuer", "issuer.example"),
        ("jwt_issuer", "http://issuer.example"),
        ("jwt_issuer", "https://"),
        ("jwt_issuer", "https://[x"),
        ("jwt_audience", []),
        ("jwt_audience", [""]),
        ("jwt_algorithms", []),
        ("jwt_algorithms", ["none"]),
        ("jwt_algorithms", ["HS256"]),
        ("jwt_leeway", 61.0),
        ("jwt_leeway", -1.0),
        ("jwt_keys", "http://keys.example/jwks"),
        ("jwt_keys", "ftp://keys.example/jwks"),
        ("jwt_keys", "no-such-file.json"),
        ("jwt_principal_claim", ""),
    ],
)
def test_a_setting_that_cannot_work_is_named(tmp_path: Path, setting: str, value: object) -> None:
    option = "--" + setting.replace("_", "-")
    assert refusal(tmp_path, **{setting: value}).startswith((f"{option}: ", f"{setting} (not set): "))


@pytest.mark.parametrize("address", ["https://keys.example/jwks", "http://127.0.0.1:8080/jwks", "http://localhost/k"])
def test_keys_may_be_at_an_address_that_cannot_be_listened_to(tmp_path: Path, address: str) -> None:
    assert load(JWT | {"jwt_keys": address}, {}, tmp_path).jwt_keys == address


def test_with_keys_in_a_file_the_issuer_need_not_be_an_address(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks(RSA))
    assert load(JWT | {"jwt_issuer": "me", "jwt_keys": str(file)}, {}, tmp_path).jwt_issuer == "me"
