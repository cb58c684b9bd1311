"""Variables that are no settings: what Kubernetes and Docker give a program for each service it could call. Pure.

A Service with the name `a2a-server` makes `A2A_SERVER_SERVICE_HOST`, `A2A_SERVER_PORT=tcp://10.96.0.10:80` and others,
one with the name `a2a-server-db` makes `A2A_SERVER_DB_SERVICE_HOST` and so on. All of them begin as our settings do.
"""

import re
from collections.abc import Iterable, Mapping

_TRANSPORT = "TCP|UDP|SCTP"
_NAME = re.compile(rf"(?:.+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT_\d+_(?:{_TRANSPORT})(?:_(?:PROTO|PORT|ADDR))?)")
_PORT = re.compile(r"(?:.+_)?PORT")
_ADDRESS = re.compile(rf"(?:{_TRANSPORT})://\S+:\d+", re.IGNORECASE)


def service_links(environ: Mapping[str, str], prefix: str) -> list[str]:
    """The variables with this prefix that have the form of a service link, by name and, for `…PORT`, by value."""
    return [variable for variable, value in environ.items() if _is_link(variable, prefix, value)]


def told_of(links: Iterable[str]) -> str:
    """One line for the operator."""
    first, *more = sorted(links)
    return (
        f"a2a-server: {first}{f' and {len(more)} more variables' if more else ''} of the environment describe a "
        "Kubernetes service, they are no settings of this server: ignored (enableServiceLinks: false keeps them away)"
    )


def _is_link(variable: str, prefix: str, value: str) -> bool:
    if not variable.startswith(prefix):
        return False
    name = variable.removeprefix(prefix)
    return _NAME.fullmatch(name) is not None or (
        _PORT.fullmatch(name) is not None and _ADDRESS.fullmatch(value.strip()) is not None
    )
