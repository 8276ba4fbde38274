"""The most memory that this process has held since it was last asked (Linux; else since start)."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
_CLEAR: Final = Path("/proc/self/clear_refs")
_PEAK: Final = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
# Tells the kernel to forget the highest resident size.
_RESET_PEAK: Final = "5"


def reset_peak() -> None:
    """Begin anew, where the system can."""
    with contextlib.suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")


def peak_bytes() -> int:
    """Return the highest resident size."""
    if sys.platform == "linux" and (found := _PEAK.search(_STATUS.read_text(encoding="ascii"))):
        return int(found[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
