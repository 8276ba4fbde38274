"""Processes that tests start."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def ending(process: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    """Wait for a process, as it does itself; where the test fails, end it and do not wait.

    So it is where the test is timed out while this waits.
    """
    try:
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise
    finally:
        # Nothing happens to one that was waited for.
        process.kill()


def end_with_children(process: int) -> None:
    """Kill a process, and those that it has started, which may have been stopped."""
    for one in (process, *children_of(process)):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def children_of(process: int, started_as: str = "") -> list[int]:
    """Return the processes that one has started, with some words in their command."""
    children = [one for one in _numbers() if _parent(one) == process]
    return [one for one in children if started_as.encode() in _read(one, "cmdline")]


def started_with(variable: str) -> list[int]:
    """Return the processes that were started with a variable (`NAME=value`) in the environment."""
    wanted = variable.encode()
    return [one for one in _numbers() if wanted in _read(one, "environ").split(b"\0")]


def _numbers() -> list[int]:
    return [int(one.name) for one in Path("/proc").iterdir() if one.name.isdecimal()]


def _parent(process: int) -> int:
    # The name, in brackets, may hold anything.
    fields = _read(process, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _read(process: int, file: str) -> bytes:
    """Return what Linux tells of a process; nothing of one that has ended or is another's."""
    try:
        return Path(f"/proc/{process}/{file}").read_bytes()
    except OSError:
        return b""


def signal_a_thread(process: int, number: signal.Signals) -> None:
    """Send a signal as the system may hand it over: to a thread that is not the main one."""
    library = ctypes.CDLL(None, use_errno=True)
    threads = [int(one.name) for one in Path(f"/proc/{process}/task").iterdir()]
    others = [one for one in threads if one != process and _takes(process, one, number)]
    assert not library.tgkill(process, others[0], number), os.strerror(ctypes.get_errno())


def _takes(process: int, thread: int, number: signal.Signals) -> bool:
    status = Path(f"/proc/{process}/task/{thread}/status").read_text(encoding="ascii")
    (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    return not int(blocked, 16) >> (number - 1) & 1


# Below the ports that the system gives to clients: none of them takes one before its server does.
_PORTS = itertools.cycle(random.SystemRandom().sample(range(15_000, 32_000), 2_000))


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    for port in _PORTS:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError
