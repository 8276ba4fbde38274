"""Processes as Linux shows them: what one has used, and one that must not outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final, NamedTuple

_PR_SET_PDEATHSIG: Final = 1
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Used(NamedTuple):
    """What a process has used of processors, and has of memory."""

    cpu_s: float
    memory_bytes: int


def used_by(process: int) -> Used | None:
    """Return what a process has used; None for one that is gone."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        # Behind the name, which may hold anything.
        fields = told.rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        return Used(cpu_s, int(fields[21]) * _PAGE_BYTES)
    except (OSError, IndexError):
        return None


def end_with_parent() -> None:
    """Be killed when the parent is gone, whatever this process does then."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
