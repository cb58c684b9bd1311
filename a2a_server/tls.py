"""TLS: what the settings name is tried before anything listens, so that a wrong file stops the start with one line."""

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from a2a_server.config import Config
from core.model.errors import ConfigurationError

# TLS 1.2 with forward secrecy and authenticated encryption; the suites of TLS 1.3 are all of that kind.
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
CLIENT_AUTH: Final[Mapping[str, ssl.VerifyMode]] = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class _PasswordMissing(Exception):
    """OpenSSL asks for a password that was not configured; it would ask at the terminal otherwise."""


def key_password(config: Config) -> str | None:
    """The password of the private key, from its file, without the line's end. Raises ConfigurationError."""
    if config.tls_key_password_file is None:
        return None
    try:
        return _read("tls_key_password_file", config.tls_key_password_file).decode().rstrip("\r\n")
    except UnicodeError:
        raise ConfigurationError(f"tls_key_password_file: {config.tls_key_password_file} is not text") from None


def check(config: Config) -> None:
    """Try what the settings name. Raises ConfigurationError."""
    if config.tls_cert is None:
        return
    for name in ("tls_cert", "tls_key", "tls_ca"):
        if (path := getattr(config, name)) is not None:
            _read(name, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    password = key_password(config)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, lambda: password or _no_password())
    except _PasswordMissing:
        raise ConfigurationError("tls_key_password_file: required: the private key is encrypted") from None
    except ssl.SSLError as error:
        wrong = "do not match" if "MISMATCH" in str(error.reason) else "cannot be used; both must be PEM"
        password_too = "" if password is None else ", or the password is wrong"
        raise ConfigurationError(f"tls_cert, tls_key: certificate and key {wrong}{password_too}") from None
    if config.tls_ca is not None:
        try:
            context.load_verify_locations(config.tls_ca)
        except ssl.SSLError:
            raise ConfigurationError(f"tls_ca: {config.tls_ca} has no PEM certificates") from None


def _no_password() -> str:
    raise _PasswordMissing


def _read(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name}: {path} cannot be read: {error.strerror}") from None
