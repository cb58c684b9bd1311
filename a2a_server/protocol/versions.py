"""Which versions of the A2A protocol this server speaks, and the check of the one that a client asks for (A2A §3.6)."""

import re

from a2a_server.protocol.errors import VersionNotSupported

SUPPORTED = ("1.0",)

_VERSION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.\d{1,9})?", re.ASCII)


def check_version(requested: str | None) -> None:
    """Raise VersionNotSupported unless `requested` is a version we speak.

    An absent version is taken for 1.0 although the specification says 0.3: a PascalCase method cannot be a 0.3 one, and
    gateways drop the header. The patch number does not count (A2A §3.6.1).
    """
    if not requested or requested in SUPPORTED:
        return
    matched = _VERSION.fullmatch(requested.strip())
    if matched is None or f"{int(matched[1])}.{int(matched[2] or 0)}" not in SUPPORTED:
        raise VersionNotSupported(metadata={"supportedVersions": ",".join(SUPPORTED)})
