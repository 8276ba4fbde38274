"""Processes as Linux has them: what one has used, and how one is told to end."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_PR_SET_PDEATHSIG: Final = 1
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_NS_PER_S: Final = 10**9
_STOPS: Final = (signal.SIGTERM, signal.SIGINT)


class Used(NamedTuple):
    """What a process has used of processors, and has of memory.

    `queued_s` is how long its threads could have run and had no processor, all together.
    """

    cpu_s: float
    memory_bytes: int
    queued_s: float


def used_by(process: int) -> Used | None:
    """Return what a process has used; None for one that is gone."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        # Behind the name, which may hold anything.
        fields = told.rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        return Used(cpu_s, int(fields[21]) * _PAGE_BYTES, _queued_s(process))
    except (OSError, IndexError):
        return None


def _queued_s(process: int) -> float:
    """Return how long the threads of a process were in the queues; 0 where the system keeps none.

    Raises OSError for a process that is gone.
    """
    queued_ns = 0
    for thread in Path(f"/proc/{process}/task").iterdir():
        # A thread may end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            queued_ns += int((thread / "schedstat").read_text(encoding="ascii").split()[1])
    return queued_ns / _NS_PER_S


def end_with_parent() -> None:
    """Be killed when the parent is gone, whatever this process does then."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


class StopSignals:
    """SIGTERM and SIGINT, whichever thread the system hands them to. To be made by the main thread.

    A lock is no way to wait for them: Python runs handlers in the main thread only, and a lock
    wakes it up only for a signal that it got itself.
    """

    def __init__(self) -> None:
        """Take them from now on, until the process ends."""
        self._told, self._telling = socket.socketpair()
        self._telling.settimeout(0)
        signal.set_wakeup_fd(self._telling.fileno(), warn_on_full_buffer=False)
        for number in _STOPS:
            signal.signal(number, _nothing)

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait for one; return its name, or the empty string after this long."""
        self._told.settimeout(timeout_s)
        try:
            while (number := self._told.recv(1)[0]) not in _STOPS:
                continue
        except TimeoutError:
            return ""
        return signal.Signals(number).name


def _nothing(_number: int, _frame: object) -> None:
    """Only that the signal does not end the process."""
