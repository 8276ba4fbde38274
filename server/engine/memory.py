"""How much memory there is, and how much a process has."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

_GIBIBYTE: Final = 2**30
# Of what there is; the rest is for the receiver, and for what the system keeps of files.
_SHARE: Final = 0.5
_MOST_SHARE: Final = 0.8


def resident_bytes(process: int | str = "self") -> int:
    """Return the resident memory of a process; 0 where it is gone."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


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
