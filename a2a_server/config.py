"""Every setting of the server: its name, default and range, and its sources.

The command line wins over `A2A_SERVER_*` variables, these over a TOML file, and that over the defaults. A setting that
cannot work stops the start with one line that names it and where it was set.

It is read here, not by pydantic-settings: msgspec has the types already, importing pydantic would make each command
start later, and most of this module is rules that would remain.
"""

import logging
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, ValidationError

from a2a_server.auth.settings import check_auth, is_loopback
from a2a_server.edge.limits import OF_EVERYBODY, OF_THE_IDENTIFIED, CallerLimits
from a2a_server.edge.origins import ANY, origin_of
from a2a_server.process.service_links import service_links, told_of
from a2a_server.protocol.web_url import web_url
from a2a_server.push.settings import PushSettings, check_push
from core.executors.raised import ErrorTexts
from core.model.errors import ConfigurationError
from core.model.jsonvalue import MAX_BYTES, MAX_OUTPUT
from core.model.problems import problem_of

logger = logging.getLogger(__name__)

PREFIX = "A2A_SERVER_"
FILE_NAME = "a2a-server.toml"
FILE_SETTING = "config"  # not a setting: it says where the settings are
# Settings whose option is not called as they are: it is given once for each item.
OPTIONS = {
    "allowed_hosts": "--allowed-host",
    "trusted_proxies": "--trusted-proxy",
    "cors_origins": "--cors-origin",
    "commands": "--command",
}

_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^/]*@")
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]?|\*")
_ROOT_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


def _without_password(url: str) -> str:
    return _PASSWORD.sub(r"\1:***@", url)


Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Kept = Annotated[float, Meta(ge=0, le=1e10)]
Names = tuple[str, ...]
Weights = dict[str, Annotated[float, Meta(ge=0.001, le=1000)]]
# `mask` is what stands for the value where settings are shown.
DatabaseUrl = Annotated[str, Meta(min_length=1, extra={"mask": _without_password})]


class Config(PushSettings, frozen=True, kw_only=True):
    """The settings of one server."""

    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"  # the address to listen on
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000  # 0: any free port
    insecure: bool = False  # listen beyond loopback without authentication
    allowed_hosts: Names = ()  # names accepted in the Host header, besides loopback, `host` and `public_url`; "*": any
    public_url: str | None = None  # the address that callers use, if it differs from host and port (a proxy)
    root_path: str = ""  # path prefix behind a proxy, such as /agents/one; every route answers under it
    trusted_proxies: Names = ()  # addresses and networks whose X-Forwarded-For, -Proto and -Host are trusted
    allowed_origins: Names = ()  # web origins whose requests are accepted, besides the server's own
    cors_origins: Names = ()  # web origins whose pages may also read the answers (CORS); "*": any
    cors_credentials: bool = False  # browsers may send cookies and client certificates with CORS requests
    tls_cert: str | None = None  # server certificate and chain (PEM); none: no TLS
    tls_key: str | None = None  # private key (PEM), if it is not in the file of `tls_cert`
    tls_key_password_file: str | None = None  # file with the private key's password
    tls_ca: str | None = None  # CA bundle for client certificates (PEM)
    tls_client_auth: Literal["none", "optional", "required"] = "none"  # whether callers must show a client certificate
    database: DatabaseUrl = (
        "sqlite:///a2a-server.db"  # a SQLite file, its path after sqlite:///, or a postgresql:// URL
    )
    max_stored_per_caller: Annotated[int, Meta(ge=0)] = 1024**3  # bytes stored for one caller's tasks; 0: no limit
    disk_reserve: Annotated[int, Meta(ge=0)] = (
        64 * 1024 * 1024
    )  # free bytes of disk reserved for finishing, cancelling and deleting tasks, and for keys

    executors: Names = ()  # files or modules that register executors
    default_skill: str | None = None  # skill for messages that name none
    card: str | None = None  # agent card template (JSON); none: the built-in one
    card_mode: Literal["auto", "strict", "hybrid"] = "auto"  # strict: v1.0 only; hybrid: also v0.3; auto: by client
    card_keys: Names = ()  # private key files that sign the card, newest first
    public_skills: Names | None = None  # skills shown in the public card; none: all
    extended_card: str | None = None  # template for the extended card, which identified callers get
    commands: Names = ()  # programs that command_executor may run; empty: it is off
    egress_allow: Names = ()  # private hosts, addresses or networks that executors may call

    max_connections: Count = 10_000  # open connections
    max_connections_per_address: Count = 200  # open connections of one address; loopback and trusted proxies are exempt
    max_head: Count = 16 * 1024  # bytes of a request's target and header fields
    max_header_fields: Count = 100  # header fields of one request
    max_body: Count = 10 * 1024 * 1024  # bytes of a request's body
    max_nesting: Annotated[int, Meta(ge=1, le=128)] = 64  # nesting levels of JSON in a body
    max_values: Count = 100_000  # JSON values in a body; each takes at least 40 bytes of memory
    max_http_bytes: Count = 256 * 1024 * 1024  # bytes of memory for bodies, their values and unsent answers
    max_http_bytes_per_caller: Count = 64 * 1024 * 1024  # the same for one caller
    max_batch: Count = 50  # requests in one JSON-RPC batch
    max_tree_tasks: Count = 10_000  # tasks of one tree
    max_depth: Count = 200  # levels of one tree
    max_open_tasks: Count = 100_000  # unfinished tasks of one caller
    max_webhooks: Count = 5_000  # webhooks of one caller with pending deliveries; each is kept in memory
    max_keys: Count = 1_000  # valid API keys of one tenant; revoked and expired keys do not count
    max_file: Count = 10 * 1024 * 1024  # bytes of a file in a message
    client_context_ids: bool = True  # whether clients may create a context by sending a new contextId
    idempotency_keep: Annotated[float, Meta(gt=0, le=365 * 86_400)] = 86_400.0  # seconds an Idempotency-Key is kept
    compact_after: Kept = 86_400.0  # seconds after a task's end until its log is compacted; 0: never
    delete_after: Kept = 30 * 86_400.0  # seconds after a task's end until it is deleted; 0: never
    idempotency_by_message_id: bool = False  # use messageId as the key of messages without the Idempotency-Key header

    # Requests per second of one caller. None, for this and `max_calls` and `max_streams`: 100 for an identified
    # caller; unidentified callers count as one and have 5,000 streams and no other limit.
    max_rate: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    max_burst: Count | None = None  # requests of one caller at once; none: two seconds of `max_rate`
    max_calls: Count | None = None  # concurrent calls of one caller; none: see `max_rate`
    max_streams: Count | None = None  # concurrent streams of one caller; none: see `max_rate`

    # Under overload (see `overload_hard`), new work is accepted only while fewer calls than this are in flight.
    overload_soft: Count = 150
    overload_hard: Count = 512  # calls in flight or recently refused at which overload begins: new work gets 503

    max_running: Count = 100  # tasks that run at the same time in this process
    # Running tasks of one caller, whose share of threads and processes is the same. None: half of `max_running` for
    # an identified caller; no limit for unidentified callers, who count as one.
    max_running_per_caller: Count | None = None
    tenant_weights: Weights = msgspec.field(default_factory=dict)  # tenant -> weight of each of its callers; default 1
    max_task_seconds: Kept = 3_600.0  # longest run of one attempt, even if the task's `timeout` is longer; 0: no limit
    max_threads: Count = 512  # threads of plain functions, including those still running after their attempt ended
    # Child processes: functions that run in their own process.
    max_processes: Count = msgspec.field(default_factory=lambda: 4 * (os.cpu_count() or 1))
    max_running_per_tree: Count | None = None  # running tasks of one tree; none: no limit
    max_artifact: Count = MAX_BYTES  # bytes of JSON of one artifact, message or result of an executor
    max_output: Count = MAX_OUTPUT  # bytes of JSON of all artifacts of one attempt
    max_in_flight: Count = 256 * 1024 * 1024  # bytes of memory for open tasks, what they fetch, and large copies
    max_in_flight_per_caller: Count = 128 * 1024 * 1024  # the same for one caller
    # What callers see of an executor's exceptions. None: only the type if `auth` is set, else the full text.
    error_texts: ErrorTexts | None = None

    sse_ping: Seconds = 15.0  # seconds between keep-alive comments on a quiet stream
    head_timeout: Seconds = 10.0  # time for a request's head to arrive, including the TLS handshake
    body_timeout: Seconds = 30.0  # time for a request's body to arrive
    min_body_rate: Count = 1024  # minimum bytes per second of a body, after its first 5 seconds
    send_buffer: Annotated[int, Meta(ge=1, le=2**30)] = 64 * 1024  # bytes that the kernel buffers for a slow reader
    send_timeout: Seconds = 30.0  # time without progress after which a slow reader's connection is reset
    drain_delay: Annotated[float, Meta(ge=0, le=3_600)] = (
        0.0  # seconds to go on serving calls after SIGTERM, so that load balancers notice
    )
    drain: Seconds = 30.0  # time for running tasks to finish, after `drain_delay`
    watchdog: Annotated[float, Meta(ge=0, le=60)] = 0.25  # log callbacks that block the loop for this long; 0: never
    keep_alive: Seconds = 5.0  # time that a connection may be idle

    log_level: Literal["debug", "info", "warning", "error"] = "info"  # lowest level that is logged
    log_json: bool = False  # log JSON lines

    def hosts(self) -> frozenset[str]:
        """The names that a request's `Host` may have, lower case, without port and brackets."""
        names = {"127.0.0.1", "localhost", "::1", *self.allowed_hosts}
        if not _is_wildcard(self.host):
            names.add(self.host)
        if self.public_url:
            names.add(urlsplit(self.public_url).hostname or "")
        return frozenset(name.strip("[]").lower() for name in names if name)

    def url(self, port: int | None = None) -> str:
        """The address that callers use, with a slash at its end. `port`: the one that was found for port 0."""
        if self.public_url:
            has_path = urlsplit(self.public_url).path.strip("/") != ""
            return self.public_url.rstrip("/") + ("" if has_path else self.root_path) + "/"
        scheme = "http" if self.tls_cert is None else "https"
        host = "localhost" if _is_wildcard(self.host) else self.host
        return f"{scheme}://{_authority(host, port or self.port)}{self.root_path}/"

    def address(self, port: int) -> str:
        """The host and port that the server listens on."""
        return _authority(self.host, port)

    def own_origins(self) -> set[str]:
        """The web origin of `public_url`: pages of it are ours, whatever `Host` the proxy sends."""
        if self.public_url is None:
            return set()
        address = urlsplit(self.public_url)
        return {f"{address.scheme}://{address.netloc}"}

    def caller_limits(self, *, is_identified: bool) -> CallerLimits:
        """The limits of one caller."""
        usual = OF_THE_IDENTIFIED if is_identified else OF_EVERYBODY
        return CallerLimits(
            rate=self.max_rate or usual.rate,
            burst=self.max_burst,
            calls=self.max_calls or usual.calls,
            streams=self.max_streams or usual.streams,
        )

    @property
    def is_exposed(self) -> bool:
        """Whether callers on other machines can reach it."""
        return self.public_url is not None or not is_loopback(self.host)


def load(command_line: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> Config:
    """The settings in force.

    `command_line` has the options by name (None: not given); the configuration file is looked for in `directory`.
    Variables that are links to Kubernetes services are no settings; one line says that they are ignored.
    Raises ConfigurationError.
    """
    if links := service_links(environ, PREFIX):
        logger.warning("%s", told_of(links))  # before logs are configured: Python prints a warning as it is
        environ = {variable: value for variable, value in environ.items() if variable not in links}
    given = {name: value for name, value in command_line.items() if value is not None}
    path = given.pop(FILE_SETTING, None) or environ.get(PREFIX + FILE_SETTING.upper())
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, name, value in _settings(given, environ, _file(path, directory)):
        if name in values:  # a source that comes earlier has set it
            continue
        values[name] = value
        sources[name] = source
    config = Config(**values)
    _check(config, lambda name: sources.get(name, f"{name} (not set)"))
    return config


def effective(config: Config) -> dict[str, Any]:
    """Every setting with its value, as it may be shown: secrets are masked."""
    shown: dict[str, Any] = {}
    for field in msgspec.structs.fields(Config):
        value = getattr(config, field.name)
        mask = _mask(field.type)
        shown[field.name] = mask(value) if mask else list(value) if isinstance(value, tuple) else value
    return shown


Table = tuple[str, dict[str, Any]]  # a file's path, and what it sets
Settings = Iterator[tuple[str, str, Any]]  # source, name, value


def _settings(command_line: Mapping[str, Any], environ: Mapping[str, str], file: Table) -> Settings:
    """Every value that was given, converted, strongest source first. Raises ConfigurationError at the first wrong."""
    fields = {field.name: field for field in msgspec.structs.fields(Config)}

    def known(name: str, source: str) -> None:
        if name not in fields:
            close = get_close_matches(name, fields, n=1)
            raise ConfigurationError(f"{source}: no such setting{f'; did you mean {close[0]}?' if close else ''}")

    for name, value in command_line.items():
        source = OPTIONS.get(name) or "--" + name.replace("_", "-")
        known(name, source)
        yield source, name, _converted(value, fields[name].type, source)
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or name == FILE_SETTING:
            continue
        known(name, variable)
        yield variable, name, _converted(_from_text(text, fields[name].type), fields[name].type, variable)
    path, table = file
    for name, value in table.items():
        source = f"{name} in {path}"
        known(name, source)
        yield source, name, _converted(value, fields[name].type, source)


def _file(path: str | None, directory: Path) -> Table:
    """The configuration file's path and content; the default file need not exist."""
    file = directory / (path or FILE_NAME)
    try:
        return str(path or FILE_NAME), tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if path is None:
            return FILE_NAME, {}
        raise ConfigurationError(f"the configuration file {path} does not exist") from None
    except OSError as error:
        raise ConfigurationError(f"the configuration file {file} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigurationError(f"the configuration file {file} is not TOML: {error}") from None


def _from_text(text: str, annotation: Any) -> Any:
    """A variable's text as the setting's type: lists, and tables as `a=1, b=2`, have commas; empty means none."""
    if _holds(annotation, tuple):
        return [item.strip() for item in text.split(",") if item.strip()]
    if _holds(annotation, bool):
        return True if text.lower() in _YES else False if text.lower() in _NO else text
    if _holds(annotation, dict):
        pairs = (item.partition("=") for item in text.split(",") if item.strip())
        return {name.strip(): _number(value, float) for name, _, value in pairs}
    if text == "" and _holds(annotation, type(None)):
        return None
    for number in (int, float):
        if _holds(annotation, number):
            return _number(text, number)
    return text


def _number(text: str, kind: type[int] | type[float]) -> int | float | str:
    """The text as a number, if it is one."""
    try:
        return kind(text)
    except ValueError:
        return text


def _converted(value: Any, annotation: Any, source: str) -> Any:
    try:
        return msgspec.convert(value, annotation)
    except ValidationError as error:
        words = problem_of(error).message
        if words.startswith("invalid enum value"):
            words += f"; it is one of {', '.join(_choices(annotation))}"
        elif _holds(annotation, bool):
            words = "must be true or false"
        raise ConfigurationError(f"{source}: {words}") from None


_DATABASES = ("sqlite:", "sqlite+", "postgresql:", "postgresql+", "postgres:")


def _check(config: Config, source: Callable[[str], str]) -> None:
    """The rules that one setting's type cannot say."""
    if not config.database.startswith(_DATABASES):
        raise ConfigurationError(
            f"{source('database')}: must be a URL of SQLite (sqlite:///path/to/file.db) or of PostgreSQL "
            "(postgresql://user:password@host/database)"
        )
    if config.public_url is not None:
        try:
            web_url(config.public_url)
        except ValueError as error:
            raise ConfigurationError(f"{source('public_url')}: {error}") from None
    for name in config.allowed_hosts:
        if not _HOST.fullmatch(name):
            raise ConfigurationError(
                f"{source('allowed_hosts')}: {name!r} is not a host name (without scheme and port)"
            )
    check_auth(config, source)
    check_push(config, source)
    _check_edge(config, source)
    if 0 < config.delete_after < config.idempotency_keep:
        raise ConfigurationError(
            f"{source('delete_after')}: must not be less than idempotency_keep, {config.idempotency_keep:g}: "
            "an idempotency key must not outlive its task"
        )
    if not (config.identifies_callers or config.insecure or is_loopback(config.host)):
        raise ConfigurationError(
            f"{source('host')}: {config.host} is reachable from other machines, and callers are not identified; "
            "listen on 127.0.0.1, set auth, or add --insecure if something else protects the server"
        )


def _check_edge(config: Config, source: Callable[[str], str]) -> None:
    """The rules for proxies, web origins, limits and TLS."""
    if config.root_path and not _ROOT_PATH.fullmatch(config.root_path):
        raise ConfigurationError(
            f"{source('root_path')}: must be a path such as /agents/one, without a slash at its end"
        )
    for entry in config.trusted_proxies:
        try:
            ip_network(entry)
        except ValueError:
            raise ConfigurationError(f"{source('trusted_proxies')}: {entry!r} is not an address or network") from None
    for name in ("allowed_origins", "cors_origins"):
        for entry in getattr(config, name):
            if entry == ANY and name == "cors_origins":
                continue
            try:
                origin_of(entry)
            except ValueError:
                raise ConfigurationError(
                    f"{source(name)}: {entry!r} is not a web origin such as https://app.example"
                ) from None
    if config.cors_credentials and ANY in config.cors_origins:
        raise ConfigurationError(f"{source('cors_credentials')}: does not go with * in cors_origins; list the origins")
    if config.max_calls is not None and config.max_calls < config.max_batch:
        raise ConfigurationError(f"{source('max_calls')}: must not be less than max_batch, {config.max_batch}")
    if config.max_http_bytes_per_caller < config.max_body:
        raise ConfigurationError(
            f"{source('max_http_bytes_per_caller')}: must not be less than max_body, {config.max_body}: "
            "no body of that size could be read"
        )
    if config.max_http_bytes < config.max_http_bytes_per_caller:
        raise ConfigurationError(
            f"{source('max_http_bytes')}: must not be less than max_http_bytes_per_caller, "
            f"{config.max_http_bytes_per_caller}"
        )
    if config.overload_hard < config.overload_soft:
        raise ConfigurationError(
            f"{source('overload_hard')}: must not be less than overload_soft, {config.overload_soft}"
        )
    for name in ("tls_key", "tls_key_password_file", "tls_ca"):
        if getattr(config, name) is not None and config.tls_cert is None:
            raise ConfigurationError(f"{source(name)}: needs tls_cert")
    if config.tls_client_auth != "none" and config.tls_ca is None:
        raise ConfigurationError(f"{source('tls_client_auth')}: needs tls_ca, the CA bundle for client certificates")
    if config.tls_client_auth == "none" and config.tls_ca is not None:
        raise ConfigurationError(f"{source('tls_ca')}: needs tls_client_auth to be optional or required")


def _authority(host: str, port: int) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def _is_wildcard(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _holds(annotation: Any, kind: type) -> bool:
    """Whether `kind` is the annotation's type, or one of its alternatives."""
    if annotation is kind or get_origin(annotation) is kind:
        return True
    return get_origin(annotation) is not Literal and any(_holds(part, kind) for part in get_args(annotation)[:2])


def _choices(annotation: Any) -> list[str]:
    """The words that a setting may be, or that its items may be."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in _choices(part)]


def _mask(annotation: Any) -> Callable[[Any], Any] | None:
    for note in getattr(annotation, "__metadata__", ()):
        if isinstance(note, Meta) and note.extra:
            mask: Callable[[Any], Any] | None = note.extra.get("mask")
            return mask
    return None
