"""How much memory there is, how much a process has, and when it has more than it needs."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Final

_GIBIBYTE: Final = 2**30
# Of what there is; the rest is for the receiver, and for what the system keeps of files.
_SHARE: Final = 0.5
_MOST_SHARE: Final = 0.8
# What an engine had in its second hour, when its caches are full, is what it needs.
_PERIOD_S: Final = 3600
_FILLING_PERIODS: Final = 1
_MUCH_BYTES: Final = 2**28


def resident_bytes(process: int | str = "self") -> int:
    """Return the resident memory of a process; 0 where it is gone."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


class Growth:
    """Tells when a process has grown so much that a new one does the same with less.

    DuckDB keeps what it knows of each column of each 122,880 rows, once they were written or read,
    for as long as the file is open: with 1,000 services some 10 MB an hour. What is compared is the
    least of an hour, as commits and compaction take more for a moment.
    """

    def __init__(self, now_s: float) -> None:
        """Begin at a time of a clock that is never set."""
        self._begin_s = now_s
        self._periods = 0
        self._least_bytes = self._needed_bytes = sys.maxsize
        self.is_much = False

    def look(self, memory_bytes: int, now_s: float) -> None:
        """Take what the process has now; `is_much` tells what came of it."""
        self._least_bytes = min(self._least_bytes, memory_bytes)
        if now_s - self._begin_s < _PERIOD_S:
            return
        self._periods += 1
        if self._periods > _FILLING_PERIODS:
            self._needed_bytes = min(self._needed_bytes, self._least_bytes)
            self.is_much = self._least_bytes - self._needed_bytes >= _MUCH_BYTES
        self._begin_s, self._least_bytes = now_s, sys.maxsize


def default_limit_bytes() -> int:
    """Return half of the memory there is, or 1 GiB if that is more and there is room for it."""
    there_bytes = min(_machine_bytes(), _group_bytes())
    return int(min(max(there_bytes * _SHARE, _GIBIBYTE), there_bytes * _MOST_SHARE))


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * resource.getpagesize()


def _group_bytes() -> int:
    """Return the limit of this process's control group; that of version 2, then of version 1."""
    group = Path("/sys/fs/cgroup")
    for path in (group / "memory.max", group / "memory" / "memory.limit_in_bytes"):
        try:
            return int(path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    return _machine_bytes()
