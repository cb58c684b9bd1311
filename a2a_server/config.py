"""Every setting of the server: its name, default and range, and where it is taken from.

The command line wins over `A2A_SERVER_*` variables, these over a TOML file, and that over the defaults. A setting that
cannot work stops the start with one line that names it and where it was set.
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
from a2a_server.push.settings import PushSettings, check_push
from core.executors.raised import ErrorTexts
from core.model.errors import ConfigurationError
from core.model.jsonvalue import MAX_BYTES, MAX_OUTPUT

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
    port: Annotated[int, Meta(ge=0, le=65535)] = 8000  # 0: any free one
    insecure: bool = False  # listen beyond loopback although nobody is identified
    allowed_hosts: Names = ()  # names in `Host` beside loopback's, `host`'s and `public_url`'s; "*": any
    public_url: str | None = None  # the address that callers use, where it is not ours (a proxy)
    root_path: str = ""  # the path under which a proxy has us, such as /agents/one; every route answers under it
    trusted_proxies: Names = ()  # addresses and networks whose X-Forwarded-For, -Proto and -Host are believed
    allowed_origins: Names = ()  # web origins whose requests are taken beside our own
    cors_origins: Names = ()  # web origins whose pages may also read the answers; "*": any
    cors_credentials: bool = False  # those pages' browsers send cookies and client certificates along
    tls_cert: str | None = None  # the certificate and its chain, PEM; None: no TLS
    tls_key: str | None = None  # its private key, PEM, where the certificate's file does not hold it
    tls_key_password_file: str | None = None  # holds the private key's password
    tls_ca: str | None = None  # whose certificates callers may show, PEM
    tls_client_auth: Literal["none", "optional", "required"] = "none"  # whether callers show one
    database: DatabaseUrl = "sqlite:///a2a-server.db"  # a file: all behind sqlite:/// is its path
    max_stored_per_caller: Annotated[int, Meta(ge=0)] = 1024**3  # bytes of JSON that a caller's tasks have; 0: any
    disk_reserve: Annotated[int, Meta(ge=0)] = (
        64 * 1024 * 1024
    )  # bytes of its disk kept for ends, cancels, keys and deletes

    executors: Names = ()  # files or modules that register executors
    default_skill: str | None = None  # for messages that name none
    card: str | None = None  # the agent card's template; None: the one that comes with the server
    card_mode: Literal["auto", "strict", "hybrid"] = "auto"  # v1.0 only, or with v0.3's fields; auto: as clients ask
    card_keys: Names = ()  # files of private keys that sign the card, the newest first
    public_skills: Names | None = None  # skills in the card that everybody may read; None: every one
    extended_card: str | None = None  # a template of its own for the card that known callers get
    commands: Names = ()  # programs that command_executor may run; none: it is off
    egress_allow: Names = ()  # private hosts, addresses or networks that executors may call

    max_connections: Count = 10_000  # at the same time
    max_connections_per_address: Count = 200  # save from this machine and from trusted proxies
    max_head: Count = 16 * 1024  # bytes of a request's target and header fields
    max_header_fields: Count = 100  # of one request
    max_body: Count = 10 * 1024 * 1024  # bytes of one request
    max_nesting: Annotated[int, Meta(ge=1, le=128)] = 64  # levels of a body's JSON; all that reads it later recurses
    max_values: Count = 100_000  # values of it; a small one takes 40 bytes of memory and more, for one or two sent
    max_http_bytes: Count = 256 * 1024 * 1024  # bytes of bodies, their values, and answers not taken, at one time
    max_http_bytes_per_caller: Count = 64 * 1024 * 1024  # the same, of one caller
    max_batch: Count = 50  # calls in one JSON-RPC batch
    max_tree_tasks: Count = 10_000  # tasks of one tree
    max_depth: Count = 200  # levels of one tree
    max_open_tasks: Count = 100_000  # of one caller: tasks that have not ended
    max_webhooks: Count = 5_000  # of one caller, that have something to be told; each stays in memory
    max_keys: Count = 1_000  # API keys of one tenant; one that is revoked or has expired makes room
    max_file: Count = 10 * 1024 * 1024  # bytes of a file in a message
    client_context_ids: bool = True  # whether clients may make contexts by naming new ones
    idempotency_keep: Annotated[float, Meta(gt=0, le=365 * 86_400)] = 86_400.0  # seconds that a key is known
    compact_after: Kept = (
        86_400.0  # seconds after its end at which a task's events are compacted into what it is; 0: never
    )
    delete_after: Kept = 30 * 86_400.0  # seconds after its end at which a task is deleted; 0: never
    idempotency_by_message_id: bool = False  # a message without the header has its messageId for a key

    # Of one caller. None: 100 requests a second, 100 calls and 100 streams at the same time for callers who are
    # identified; for those who are not, and so count as one, 5,000 streams, and no limit on the others.
    max_rate: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    max_burst: Count | None = None  # requests at once; None: as many as come in two seconds
    max_calls: Count | None = None  # calls of one caller at the same time; None: as `max_rate` says
    max_streams: Count | None = None  # streams of one caller at the same time; None: as `max_rate` says

    # When so many as the hard one want something at once, no more work is in hand than the soft one.
    overload_soft: Count = 150
    overload_hard: Count = 512  # calls that want something at once, from which on `overload_soft` holds

    max_running: Count = 100  # tasks of this process
    # Of one caller, who may also have the same part of the threads and of the processes. None: half of `max_running`
    # for callers who are identified; for those who are not, and so count as one, no limit.
    max_running_per_caller: Count | None = None
    tenant_weights: Weights = msgspec.field(default_factory=dict)  # tenant -> what each of its callers weighs; else 1
    max_task_seconds: Kept = 3_600.0  # of one attempt, also where its task's `timeout` is longer; 0: for ever
    max_threads: Count = 512  # plain functions that run, and those that hang after their attempt's end
    # Functions at a time that run in a process of their own.
    max_processes: Count = msgspec.field(default_factory=lambda: 4 * (os.cpu_count() or 1))
    max_running_per_tree: Count | None = None  # tasks of one tree; None: no limit
    max_artifact: Count = MAX_BYTES  # bytes of JSON that an executor gives at once: an artifact, a message, the result
    max_output: Count = MAX_OUTPUT  # bytes of JSON of all artifacts of one attempt
    max_in_flight: Count = 256 * 1024 * 1024  # bytes of memory that open tasks and the answers they fetch may take
    max_in_flight_per_caller: Count = 128 * 1024 * 1024  # the same, of one caller
    # What callers are told of an executor's exceptions. None: the type where callers are identified, else all.
    error_texts: ErrorTexts | None = None

    sse_ping: Seconds = 15.0  # between two comments on a stream that has nothing to tell
    head_timeout: Seconds = 10.0  # how long the head of a request may take, from the accept on, with TLS's handshake
    body_timeout: Seconds = 30.0  # how long its body may take
    min_body_rate: Count = 1024  # bytes a second, once a body has taken 5 seconds
    send_buffer: Annotated[int, Meta(ge=1, le=2**30)] = 64 * 1024  # bytes that the kernel keeps for a slow reader
    send_timeout: Seconds = 30.0  # how long a reader may take nothing, of a stream or a plain answer
    drain_delay: Annotated[float, Meta(ge=0, le=3_600)] = (
        0.0  # seconds from a signal to end on in which calls are served
    )
    drain: Seconds = 30.0  # how long what runs may take to its end, after that
    watchdog: Annotated[float, Meta(ge=0, le=60)] = 0.25  # seconds of the event loop's time for one callback; 0: any
    keep_alive: Seconds = 5.0  # how long a connection may be idle

    log_level: Literal["debug", "info", "warning", "error"] = "info"  # from which level on lines are logged
    log_json: bool = False  # a JSON object for each line

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
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or self.port}{self.root_path}/"

    def own_origins(self) -> set[str]:
        """The web origin of `public_url`: pages of it are ours, whatever `Host` the proxy sends."""
        if self.public_url is None:
            return set()
        address = urlsplit(self.public_url)
        return {f"{address.scheme}://{address.netloc}"}

    def caller_limits(self, *, is_identified: bool) -> CallerLimits:
        """What one caller may ask."""
        usual = OF_THE_IDENTIFIED if is_identified else OF_EVERYBODY
        return CallerLimits(
            rate=self.max_rate or usual.rate,
            burst=self.max_burst,
            calls=self.max_calls or usual.calls,
            streams=self.max_streams or usual.streams,
        )

    @property
    def is_exposed(self) -> bool:
        """Whether it is meant for callers of other machines."""
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
    _check(config, lambda name: sources.get(name, f"the default of {name}"))
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
    """The configuration file's path and content; the file that nobody named need not be there."""
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
        words = str(error).split(" - at `")[0]
        words = f"{words[:1].lower()}{words[1:]}"
        if words.startswith("invalid enum value"):
            words += f"; it is one of {', '.join(_choices(annotation))}"
        elif _holds(annotation, bool):
            words = "must be true or false"
        raise ConfigurationError(f"{source}: {words}") from None


def _check(config: Config, source: Callable[[str], str]) -> None:
    """The rules that one setting's type cannot say."""
    if not config.database.startswith(("sqlite:", "sqlite+")):
        raise ConfigurationError(f"{source('database')}: only SQLite is supported for now (sqlite:///path/to/file.db)")
    if config.public_url is not None:
        try:
            address = urlsplit(config.public_url)
            address.port  # noqa: B018 - it is only looked at here
        except ValueError as error:
            raise ConfigurationError(f"{source('public_url')}: is not an address: {error}") from None
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigurationError(f"{source('public_url')}: must be an http or https address")
        if address.username is not None:
            raise ConfigurationError(f"{source('public_url')}: must not contain a user or password")
    for name in config.allowed_hosts:
        if not _HOST.fullmatch(name):
            raise ConfigurationError(f"{source('allowed_hosts')}: {name!r} is no host name (without scheme and port)")
    check_auth(config, source)
    check_push(config, source)
    _check_edge(config, source)
    if 0 < config.delete_after < config.idempotency_keep:
        raise ConfigurationError(
            f"{source('delete_after')}: must not be less than idempotency_keep, {config.idempotency_keep:g}: "
            "a key that is known leads to its task"
        )
    if not (config.identifies_callers or config.insecure or is_loopback(config.host)):
        raise ConfigurationError(
            f"{source('host')}: {config.host} is reachable from other machines, and callers are not identified; "
            "listen on 127.0.0.1, set auth, or add --insecure where something else guards the server"
        )


def _check_edge(config: Config, source: Callable[[str], str]) -> None:
    """The rules for what stands between the callers and us."""
    if config.root_path and not _ROOT_PATH.fullmatch(config.root_path):
        raise ConfigurationError(
            f"{source('root_path')}: must be a path such as /agents/one, without a slash at its end"
        )
    for entry in config.trusted_proxies:
        try:
            ip_network(entry)
        except ValueError:
            raise ConfigurationError(f"{source('trusted_proxies')}: {entry!r} is no address or network") from None
    for name in ("allowed_origins", "cors_origins"):
        for entry in getattr(config, name):
            if entry == ANY and name == "cors_origins":
                continue
            try:
                origin_of(entry)
            except ValueError:
                raise ConfigurationError(
                    f"{source(name)}: {entry!r} is no origin such as https://app.example"
                ) from None
    if config.cors_credentials and ANY in config.cors_origins:
        raise ConfigurationError(f"{source('cors_credentials')}: not together with * in cors_origins; name the origins")
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
        raise ConfigurationError(f"{source('tls_client_auth')}: needs tls_ca, which says whose certificates are taken")
    if config.tls_client_auth == "none" and config.tls_ca is not None:
        raise ConfigurationError(f"{source('tls_ca')}: has no use without tls_client_auth optional or required")


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
