"""Runs the application under uvicorn, and ends it in an orderly way."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from types import FrameType
from typing import cast
from urllib.parse import urlsplit

import anyio
import uvicorn
from sse_starlette.sse import EventSourceResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from a2a_server import logs, tls
from a2a_server.app import Application, build
from a2a_server.config import Config
from a2a_server.edge.connection import Connection, Shared
from a2a_server.edge.connection_count import ACCEPTED_AT_ONCE, Connections, room
from a2a_server.edge.deadlines import Timeouts
from a2a_server.edge.handshake import Handshake
from a2a_server.edge.head_bounds import HeadLimits
from a2a_server.edge.proxies import exempt
from a2a_server.extensions import load_executors
from a2a_server.process.allocator import give_large_back
from a2a_server.process.containment import Containment
from a2a_server.process.forks import kept_from_children
from a2a_server.process.watchdog import Watchdog
from core.loop.library_hooks import require
from core.model.errors import ConfigurationError, DatabaseInUse, StorageError
from core.outside import trust
from core.outside.clock import ClockWatch

logger = logging.getLogger(__name__)

Ready = Callable[[str, str], None]  # gets the URL that callers use, and the address that the server listens on

# Exit codes of sysexits.h, which service managers know.
EX_UNAVAILABLE = 69
EX_IOERR = 74
EX_TEMPFAIL = 75
EX_CONFIG = 78

BACKLOG = 2048  # connections that the kernel keeps until they are accepted
SWITCH = 0.001  # seconds that a thread runs on when the event loop wants to go on (decision 0013)
# What our connection overrides or calls of uvicorn's; where one is missing, a limit would be off and not say so.
OVERRIDDEN = (
    *("connection_made", "connection_lost", "data_received", "eof_received", "on_message_begin", "on_url", "on_header"),
    *("on_headers_complete", "on_body", "on_message_complete", "on_response_complete", "timeout_keep_alive_handler"),
    *("_start_asgi_task", "_unset_keepalive_if_required"),
)

# Seconds after the drain: what is left is interrupted, and the storage closed; then the process ends in any case.
INTERRUPTING = 0.75
ENDING = 1.75


def say_ready(url: str, address: str) -> None:
    """Tell people, and programs that wait for it, that the server takes work.

    `url` is what callers use, `address` the host and port that it listens on.
    """
    where = url if urlsplit(url).netloc == address else f"{address}, URL {url}"
    print(f"a2a-server listening on {where} (Ctrl-C stops it)", file=sys.stderr, flush=True)


class Server(uvicorn.Server):
    """uvicorn, with our own way to start and to end: drain, let requests finish, stop the work, close the storage.

    `ready` is called with the URL and the address as soon as the server takes work. Raises ConfigurationError.
    """

    def __init__(self, application: Application, ready: Ready = say_ready) -> None:
        config = application.config
        require("uvicorn", HttpToolsProtocol, OVERRIDDEN, purpose="limits on connections and load")
        require("sse-starlette", EventSourceResponse, ["_listen_for_exit_signal"], purpose="the end of streams")
        tls.check(config)
        most = room(config.max_connections)
        self._shared = Shared(
            connections=Connections(most, config.max_connections_per_address, exempt(config.trusted_proxies)),
            timeouts=Timeouts(
                head=config.head_timeout,
                body=config.body_timeout,
                body_rate=config.min_body_rate,
                taking=config.send_timeout,
            ),
            heads=HeadLimits(size=config.max_head, fields=config.max_header_fields),
            load=application.load,
        )
        super().__init__(
            uvicorn.Config(
                application.asgi,
                http=cast(type[Connection], partial(Connection, shared=self._shared)),  # uvicorn only calls it
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=ACCEPTED_AT_ONCE,  # asyncio's one number for two things; `startup` sets the other one
                ssl_certfile=config.tls_cert,
                ssl_keyfile=config.tls_key,
                ssl_keyfile_password=tls.key_password(config),
                ssl_ca_certs=config.tls_ca,
                ssl_cert_reqs=tls.CLIENT_AUTH[config.tls_client_auth],
                ssl_ciphers=tls.CIPHERS,
                timeout_keep_alive=math.ceil(config.keep_alive),
                timeout_graceful_shutdown=int(config.drain) + 1,  # whole seconds, and longer than the drain
            )
        )
        self._application = application
        self._ready = ready
        self._until_end = ExitStack()
        self.told_to_end = threading.Event()
        self._is_asked = False  # to end, by SIGTERM or SIGINT
        self._told_at: float | None = None
        self._is_announced = False  # that it ends
        self._clock_watch = ClockWatch(application.session.clock)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the storage, listen, resume unfinished work. Raises StorageError before anything listens."""
        await self._application.start()
        self._until_end.enter_context(self._application.session.family.owns_forks())
        if self.config.ssl is not None:  # we make the handshakes ourselves, and uvicorn none
            shared = replace(self._shared, tls=self.config.ssl)
            self.config.http_protocol_class = cast(type[Handshake], partial(Handshake, shared=shared))
            self.config.ssl = None
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(BACKLOG)
        await self._application.resume()
        gc.freeze()  # what was made until now lasts as long as the server: no search for garbage looks at it again
        for listener in sockets or ():
            self._ready(self._application.url, self._application.config.address(listener.getsockname()[1]))

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's tick, ten times a second; each tenth looks at connections' deadlines and at the clock."""
        if counter % 10 == 0:
            self._clock_watch.look()
            if self._application.session.storage.is_fenced:  # it has said why
                os._exit(EX_TEMPFAIL)
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.enforce()
        if not await super().on_tick(counter):
            return False
        return time.monotonic() >= self._announce_end() + self._application.config.drain_delay

    def _announce_end(self) -> float:
        """Say once, in the log and by `/readyz`, that the server will stop. Returns when it was told to."""
        if self._told_at is None:
            self._told_at = time.monotonic()
        if not self._is_announced:
            self._is_announced = True
            self._application.announce_end()
            config, running = self._application.config, self._application.session.runner.books.running
            logger.info(
                "stopping, within %g s: calls are served for %g s, then %d running attempts have %g s to finish; "
                "a second signal ends the process now",
                config.drain_delay + config.drain + ENDING,
                config.drain_delay,
                running,
                config.drain,
            )
        return self._told_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, and let attempts and answers end within `drain` seconds."""
        self._announce_end()
        drain = self._application.config.drain
        ends_at = time.monotonic() + drain + ENDING
        async with asyncio.TaskGroup() as group:
            group.create_task(self._application.finish(drain, INTERRUPTING))
            await super().shutdown(sockets)
        await self._application.stop(max(INTERRUPTING, ends_at - time.monotonic()))
        await asyncio.to_thread(self._until_end.close)  # it looks at every process of the machine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks for an orderly end, and then the exit code is 0; the second one ends the process.

        What was durable stays so: an end in the middle is what the next start recovers from. A SIGHUP does not count:
        a terminal that is closed sends two (the shell and the kernel), a service manager one beside its SIGTERM.
        """
        if sig != signal.SIGHUP:
            if self._is_asked:
                os._exit(128 + sig)
            self._is_asked = True
        if self.should_exit:
            return
        self.should_exit = True
        self._told_at = time.monotonic()
        self.told_to_end.set()


def serve(config: Config, ready: Ready = say_ready) -> int:
    """Run a server until it is told to end; the exit code. What keeps it from starting is one line on stderr."""
    logs.configure(config.log_level, as_json=config.log_json)
    sys.setswitchinterval(SWITCH)
    try:
        trust.check()
        load_executors(config.executors)
        give_large_back()
        containment = Containment()
        containment.run(_serve(config, ready, containment))
    except ConfigurationError as error:
        return _failed(error, EX_CONFIG)
    except DatabaseInUse as error:
        return _failed(error, EX_TEMPFAIL)
    except StorageError as error:
        return _failed(error, EX_IOERR)
    except OSError as error:
        return _failed(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}", EX_UNAVAILABLE)
    logger.info("stopped")
    return 0


async def _serve(config: Config, ready: Ready, containment: Containment) -> None:
    # The library loads its part for asyncio when it is first used: in the first fetch, for up to 0.5 s of the loop.
    anyio.Event()
    with listen(config.host, config.port, config.send_buffer) as listener:
        port = listener.getsockname()[1]
        application = build(config, port=port)
        containment.break_off = application.session.runner.attempts.break_off
        server = Server(application, ready)
        _end_when_the_terminal_is_closed(server)
        limit = (server.told_to_end, config.drain_delay + config.drain + ENDING, asyncio.get_running_loop())
        threading.Thread(target=_end_in_time, args=limit, name="end-in-time", daemon=True).start()
        with Watchdog(config.watchdog), kept_from_children(listener):
            await server.serve(sockets=[listener])


def _end_when_the_terminal_is_closed(server: Server) -> None:
    """SIGHUP ends the server as SIGTERM does, unless it is ignored (nohup). Only the main thread hears signals."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)


def _end_in_time(told_to_end: threading.Event, limit: float, loop: asyncio.AbstractEventLoop) -> None:
    """End the process so many seconds after it was told to, whatever executors still do; a thread of its own.

    Tasks that swallow their cancellation, threads, and a blocked event loop would hold the interpreter's end up. The
    storage has been closed by then; if it was not, nothing that was acknowledged is lost, as with any other end.
    """
    told_to_end.wait()
    time.sleep(limit)
    try:
        tasks = sum(not task.done() for task in asyncio.all_tasks(loop))
        threads = sum(not (thread.daemon or thread is threading.main_thread()) for thread in threading.enumerate())
        logger.warning("%d asyncio tasks and %d threads did not end in time and are abandoned", tasks, threads)
        logger.info("stopped")
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
    finally:
        os._exit(0)


def listen(host: str, port: int, send_buffer: int) -> socket.socket:
    """A listening socket, whose connections keep so many bytes for a slow reader. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; else each small write may wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)  # connections inherit it
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _failed(error: object, code: int) -> int:
    print(f"a2a-server: {error}", file=sys.stderr, flush=True)
    return code
