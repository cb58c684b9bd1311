"""What process 1 of a container owes: it forwards signals, and collects the processes that others leave to it.

The program itself runs in a child, so that no other code collects the children whose ends it waits for.
"""

import os
import signal
import sys
from contextlib import suppress

INIT = 1
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)


def run_below_init() -> None:
    """Return in a child where this process is process 1, and at once where it is not. Call it before threads start.

    Process 1 itself never returns: it ends with the child, with its exit code or 128 and the signal's number.
    """
    if os.getpid() != INIT:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = os.fork()
    if child:
        _mind(child)
    os.setpgid(0, 0)  # a Ctrl-C of the terminal comes by way of process 1, once
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)


def _mind(child: int) -> None:  # pragma: no cover - runs as process 1 of a namespace only
    def forward(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            sys.stdout.flush()
            os._exit(code if code >= 0 else 128 - code)
