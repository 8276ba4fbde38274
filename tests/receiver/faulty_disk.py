"""A disk that hangs, stalls or fails when told, for a receiver in a process of its own."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

# Python runs it at every start; the engine process has a good disk.
_AT_START = """
import fcntl
import os
import sys

_fdatasync = os.fdatasync
_write = os.write


def write(descriptor, content):
    with open({control!r}, encoding="ascii") as control:
        if control.read() != "half":
            return _write(descriptor, content)
        if ".arrows" not in os.readlink(f"/proc/self/fd/{{descriptor}}"):
            return _write(descriptor, content)
        written = _write(descriptor, memoryview(content)[: len(content) // 2])
        fcntl.flock(control, fcntl.LOCK_SH)
    return written


def fdatasync(descriptor):
    with open({control!r}, encoding="ascii") as control:
        fcntl.flock(control, fcntl.LOCK_SH)
        error = control.read()
    if error:
        raise OSError(int(error), os.strerror(int(error)))
    _fdatasync(descriptor)


if "framewalk.server.engine.process" not in sys.orig_argv:
    os.fdatasync = fdatasync
    os.write = write
"""


class FaultyDisk:
    """Give `environment` to the process whose data are forced to this disk."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        control = folder / "control"
        self._control = os.open(control, os.O_RDWR | os.O_CREAT)
        paths = [str(folder), os.environ.get("PYTHONPATH", "")]
        self.environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        (folder / "sitecustomize.py").write_text(_AT_START.format(control=str(control)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of everybody."""
        os.close(self._control)

    def hang(self) -> None:
        """Let whatever is to be forced to disk wait."""
        fcntl.flock(self._control, fcntl.LOCK_EX)

    def stall(self) -> None:
        """Let the next write to a capture wait when its first half is done."""
        fcntl.flock(self._control, fcntl.LOCK_EX)
        os.pwrite(self._control, b"half", 0)

    def fail(self, error_number: int) -> None:
        """Let it fail, and what waits now as well."""
        self._go_on(str(error_number))

    def heal(self) -> None:
        """Let it be as any disk."""
        self._go_on("")

    def _go_on(self, error: str) -> None:
        os.ftruncate(self._control, 0)
        os.pwrite(self._control, error.encode(), 0)
        fcntl.flock(self._control, fcntl.LOCK_UN)
