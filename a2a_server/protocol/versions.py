"""Which versions of the A2A protocol this server speaks, and the check of the one that a client asks for (A2A §3.6)."""

import re

from a2a_server.protocol.errors import VersionNotSupported

SUPPORTED = ("1.0", "0.3")  # as the agent card lists them: clients take the first that they know

_VERSION = re.compile(r"(\d{1,9})(?:\.(\d{1,9}))?(?:\.\d{1,9})?", re.ASCII)


def check_version(requested: str | None, spoken: str) -> None:
    """Raise VersionNotSupported unless `requested` is the version `spoken` by the method that is called, or absent.

    A method's name alone tells its version, so that an absent one is never taken for another, although the
    specification says that it means 0.3: gateways drop the header. The patch number does not count (A2A §3.6.1).
    """
    if not requested or requested == spoken:
        return
    matched = _VERSION.fullmatch(requested.strip())
    if matched is None or f"{int(matched[1])}.{int(matched[2] or 0)}" != spoken:
        raise VersionNotSupported(metadata={"supportedVersions": ",".join(sorted(SUPPORTED))})
