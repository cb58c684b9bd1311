"""Errors as v0.3 clients know them: codes -32001 to -32007 and those of JSON-RPC (v0.3 specification §8). Pure."""

from typing import Any

from a2a_server.protocol.errors import (
    A2AError,
    ExtensionSupportRequired,
    UnsupportedOperation,
    VersionNotSupported,
    to_object,
)

# What came with v1.0. Our own codes (-32050 and on) are as good in one version as in the other.
LATER = (ExtensionSupportRequired, VersionNotSupported)


def error_object(error: A2AError) -> dict[str, Any]:
    """The `error` member of a response; `data` is free in v0.3, and so is that of v1.0."""
    if isinstance(error, LATER):
        error = UnsupportedOperation(error.message, metadata=error.metadata, violations=error.violations)
    return to_object(error)
