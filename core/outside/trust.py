"""Which certificates are trusted on connections that we open."""

import os
import ssl
from collections.abc import Mapping

import httpx2

from core.model.errors import ConfigurationError

FILE, FOLDER = "SSL_CERT_FILE", "SSL_CERT_DIR"  # OpenSSL's names


def trusting(environ: Mapping[str, str] = os.environ, *, authority: str | None = None) -> ssl.SSLContext:
    """The context of a client that trusts the machine's authorities.

    Those of `authority` (a PEM file) in their place, else of the file SSL_CERT_FILE and the folder SSL_CERT_DIR
    (one file each, with names as `openssl rehash` makes them). Raises ConfigurationError that names what cannot be
    read.
    """
    file, folder = (authority, None) if authority else (environ.get(FILE) or None, environ.get(FOLDER) or None)
    if file is None and folder is None:
        return httpx2.create_ssl_context(trust_env=False)
    for name, path in ((FILE, file), (FOLDER, folder)):
        if path is not None and not os.access(path, os.R_OK):
            raise ConfigurationError(f"{'--ca' if authority else name}: {path} cannot be read")
    try:
        return ssl.create_default_context(cafile=file, capath=folder)
    except (ssl.SSLError, OSError) as error:
        reason = "has no certificate in PEM" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
        raise ConfigurationError(f"{'--ca' if authority else FILE}: {file or folder} {reason}") from None


def check(environ: Mapping[str, str] = os.environ) -> None:
    """Raise ConfigurationError where the environment names authorities that cannot be read."""
    if environ.get(FILE) or environ.get(FOLDER):
        trusting(environ)
