"""Tries messages in a process of its own (probe.py), within limits of time and memory."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from framewalk.engine.closing import Closing
from framewalk.engine.errors import FramewalkError
from framewalk.engine.processes import used_by
from framewalk.engine.runs.probe import ATTEMPT, SETUP

if TYPE_CHECKING:
    from collections.abc import Callable

    from framewalk.engine.runs.probe import Attempt, Setup

_COMMAND: Final = (sys.executable, "-P", "-m", "framewalk.engine.runs.probe")
# As in an engine: batches are too small for more.
_ENVIRONMENT: Final = {"POLARS_MAX_THREADS": "1"}
# CPU time, so that a slow machine condemns nobody: about twenty times what is usual. Who only waits
# has longer, and waiting for a processor is none.
_LONGEST_CPU_S: Final = 3
_LONGEST_COMMIT_CPU_S: Final = 6
_CPU_S_PER_MIB: Final = 2
_WAITING_FACTOR: Final = 10
_MOST_MEMORY_BYTES: Final = 1_500 * 2**20
_LONGEST_START_S: Final = 300
_LOOK_EVERY_S: Final = 0.05
_NO_PROBE: Final = "the process to try messages in does not come up, or has ended"


class ProbeError(FramewalkError):
    """Nothing can be tried: no process can be started, or it does not come up."""


class Prober(Closing):
    """Keeps a process that tries messages; `on_wait` is called while it is waited for.

    `problem` is what ended the last attempt that failed.
    """

    def __init__(self, setup: Setup, on_wait: Callable[[], None]) -> None:
        self.problem = ""
        self._setup = setup
        self._on_wait = on_wait
        self._probe: subprocess.Popen[bytes] | None = None

    def lives(self, attempt: Attempt, size_bytes: int) -> bool:
        """Tell whether a process lives on these messages, of so many bytes together.

        Raises ProbeError where no process comes up at all.
        """
        if self._probe is None:
            self._probe = self._started()
        self._write(self._probe, ATTEMPT.dump_json(attempt))
        process = int(self._line(self._probe))
        least_cpu_s = _LONGEST_COMMIT_CPU_S if attempt.commits else _LONGEST_CPU_S
        limits = _Limits(process, least_cpu_s + _CPU_S_PER_MIB * size_bytes / 2**20)
        try:
            exit_code = self._line(self._probe, limits)
        except _TooMuchError as error:
            self.problem = str(error)
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            self._line(self._probe)
            return False
        if exit_code != b"0":
            self.problem = f"exit code {exit_code.decode()}"
        return exit_code == b"0"

    def close(self) -> None:
        """End the process."""
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.kill()
            probe.communicate()

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            probe = subprocess.Popen(  # noqa: S603 - this Python, with a module of our own
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=_ENVIRONMENT | os.environ,
            )
        except OSError as error:
            message = f"no process to try messages in: {(error.strerror or str(error)).lower()}"
            raise ProbeError(message) from error
        self._probe = probe
        self._write(probe, SETUP.dump_json(self._setup))
        self._line(probe)
        return probe

    @staticmethod
    def _write(probe: subprocess.Popen[bytes], line: bytes) -> None:
        assert probe.stdin is not None  # noqa: S101 - tells the type
        try:
            probe.stdin.write(line + b"\n")
            probe.stdin.flush()
        except OSError as error:
            raise ProbeError(_NO_PROBE) from error

    def _line(self, probe: subprocess.Popen[bytes], limits: _Limits | None = None) -> bytes:
        """Return the next line; raise _TooMuchError where `limits` are passed."""
        assert probe.stdout is not None  # noqa: S101 - tells the type
        ends_s = time.monotonic() + _LONGEST_START_S
        while not select.select([probe.stdout], [], [], _LOOK_EVERY_S)[0]:
            self._on_wait()
            if limits is None and time.monotonic() > ends_s:
                raise ProbeError(_NO_PROBE)
            if limits is not None and (problem := limits.excess()):
                raise _TooMuchError(problem)
        line = _read_line(probe.stdout.fileno())
        if not line:
            raise ProbeError(_NO_PROBE)
        return line


class _TooMuchError(ProbeError):
    """An attempt takes more time or memory than it may."""


def _read_line(descriptor: int) -> bytes:
    """Read without a buffer: what has come and was not read would not wake up a select."""
    line = bytearray()
    while (one := os.read(descriptor, 1)) not in {b"", b"\n"}:
        line += one
    return bytes(line)


class _Limits:
    """What a process may have of time and memory, counted from now."""

    def __init__(self, process: int, most_cpu_s: float) -> None:
        self._process = process
        self._most_cpu_s = most_cpu_s
        self._began_s = time.monotonic()

    def excess(self) -> str:
        """Say what the process has too much of; nothing for one that has ended."""
        used = used_by(self._process)
        if used is None:
            return ""
        if used.cpu_s > self._most_cpu_s:
            return f"no end after {self._most_cpu_s:.0f} s of CPU time"
        most_waited_s = _WAITING_FACTOR * self._most_cpu_s
        if time.monotonic() - self._began_s - used.queued_s > most_waited_s:
            return f"no end after {most_waited_s:.0f} s"
        if used.memory_bytes > _MOST_MEMORY_BYTES:
            return f"it takes more than {_MOST_MEMORY_BYTES // 2**20} MiB"
        return ""
