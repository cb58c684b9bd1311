"""Whom a request is meant for: the forms of its target, and the name in `Host` (RFC 9110 §7, RFC 9112 §3.2)."""

import re
from typing import Any, Final

SCHEME: Final = "a2a_server.target_scheme"  # in the scope: the scheme that an absolute target names

Fields = list[tuple[bytes, bytes]]

_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)", re.DOTALL)
# RFC 3986 §3.2.2: an IPv6 address in brackets, or a name; then perhaps a port.
_HOST: Final = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]*)?")
_NAME: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?")


def origin_form(method: bytes, target: bytes, version: str, scope: Any) -> bytes:
    """The path and query of a target of another form. Raises ValueError; its text goes behind "The target".

    The authority of an absolute target takes the place of `Host` in the scope's headers, and its scheme is kept there.
    """
    if b"#" in target:
        raise ValueError("has a fragment (#), which must not be sent")
    if target == b"*" and method == b"OPTIONS":
        return b"/"  # about the server as a whole: RFC 9110 §9.3.7
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise ValueError("must be a path that begins with a slash, or an absolute URL")
    scheme, authority, rest = found.groups()
    scope[SCHEME] = scheme.decode("ascii").lower()
    replace_host(scope["headers"], authority, adds=version == "1.0")
    return rest if rest.startswith(b"/") else b"/" + rest


def replace_host(headers: Fields, authority: bytes, *, adds: bool) -> None:
    """Put another authority into `Host`; where there is none, only with `adds`.

    One that is missing, wrong or there twice stays so, and is refused as it came.
    """
    found = False
    for at, (name, value) in enumerate(headers):
        if name == b"host":
            found = True
            if is_host(value.decode("latin-1")):
                headers[at] = (name, authority)
    if adds and not found:
        headers.insert(0, (b"host", authority))


def is_host(value: str) -> bool:
    """Whether `Host` may have this value at all."""
    return _HOST.fullmatch(value.strip().lower()) is not None


def host_name(value: str) -> str:
    """The name in a `Host` header: lower case, without port and brackets; empty where no server has such a name."""
    matched = _NAME.fullmatch(value.strip().lower())
    return (matched[1] or matched[2]) if matched else ""
