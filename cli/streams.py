"""The standard streams, such that a command can always write to them."""

from __future__ import annotations

import io
import os
import sys
from typing import Final

_STANDARD: Final = (0, 1, 2)


def make_writable() -> None:
    """Open what the caller has closed, and let what an encoding does not have be escaped."""
    _fill()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False)))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fill() -> None:
    """Give each closed number to the null device: a store must not become standard error."""
    while (number := os.open(os.devnull, os.O_RDWR)) in _STANDARD:
        # For the processes that this one starts as well.
        os.set_inheritable(number, True)  # noqa: FBT003 - it takes no keyword
    os.close(number)
