"""Processes as Linux shows them: what one has used, and one that must not outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_PR_SET_PDEATHSIG: Final = 1
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_NS_PER_S: Final = 10**9


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
