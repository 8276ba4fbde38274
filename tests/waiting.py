"""How tests wait: for a condition, with an end that only what never comes reaches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Not what anything takes: what a machine may take that has twenty other things to do.
DEADLINE_S = 600
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.1


def wait_until(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition that stays true once it is, with fewer looks the longer it takes."""
    end_s = time.monotonic() + deadline_s
    pause_s = _FIRST_PAUSE_S
    while not condition():
        assert time.monotonic() < end_s, f"it did not come within {deadline_s:,.0f} s"
        threading.Event().wait(pause_s)
        pause_s = min(pause_s * 1.2, _LONGEST_PAUSE_S)
