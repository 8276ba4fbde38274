"""Runs `framewalk` in processes that are forked from one that has loaded what they need.

To load it takes most of the second of CPU time that a short command takes, or a server until it is
ready. What is forked is what a start would be, at the place where `framewalk replay` itself forks
the process that works.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

COMMAND = str(Path(sys.executable).with_name("framewalk"))
_COMMANDS = (
    "entities",
    "export",
    "generate",
    "map",
    "mqe",
    "oal",
    "panels",
    "quarantine",
    "recompute",
    "replay",
    "send",
    "snapshot",
    "sql",
    "status",
)
_SERVERS = ("serve",)
# Nothing that computes: a receiver has none of it either.
_LOADED_BY_SERVERS = ("framewalk.server.server", "framewalk.receiver.transports.uvicorn.server")
_LONGEST_BYTES = 1 << 17
_one_at_a_time = threading.Lock()


def framewalk(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing to read; `environment` is added to this one's."""
    asked = _asked(arguments, dict(os.environ) | environment)
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        with _one_at_a_time, _ended_if_it_fails(_first(*_COMMANDS)) as link:
            socket.send_fds(link, [asked], [stdout.fileno(), stderr.fileno()])
            told = link.recv(_LONGEST_BYTES)
            assert told, "the process that commands are forked from has ended"
        printed = _text(stdout), _text(stderr)
    return subprocess.CompletedProcess([COMMAND, *arguments], int(told), *printed)


class Started:
    """A server that was forked, as a `subprocess.Popen` whose `stderr` is a pipe."""

    def __init__(self, arguments: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start it; it is told by another process, its parent, when it has ended."""
        reading, stderr = os.pipe()
        self._told, telling = os.pipe()
        self.stderr = os.fdopen(reading, encoding="utf-8")
        self.returncode: int | None = None
        self._lines = b""
        self._waits = threading.RLock()
        try:
            with _one_at_a_time, _ended_if_it_fails(_first(*_SERVERS)) as link:
                asked = _asked(arguments, environment)
                socket.send_fds(link, [asked], [stderr, telling])
                os.close(telling)
                telling = -1
                self.pid = int(self._line(None))
        finally:
            os.close(stderr)
            if telling >= 0:
                os.close(telling)

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        if self._waits.acquire(blocking=False):
            try:
                self.wait(0)
            except subprocess.TimeoutExpired:
                return None
            finally:
                self._waits.release()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns the exit code."""
        with self._waits:
            if self.returncode is None:
                self.returncode = int(self._line(timeout))
                os.close(self._told)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            # It may have ended, and its parent be about to tell.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _line(self, timeout: float | None) -> bytes:
        waiting = select.poll()
        waiting.register(self._told, select.POLLIN)
        while b"\n" not in self._lines:
            if not waiting.poll(None if timeout is None else timeout * 1_000):
                raise subprocess.TimeoutExpired(COMMAND, timeout or 0)
            told = os.read(self._told, 100)
            assert told, "the process that waited for a server has ended"
            self._lines += told
        line, _, self._lines = self._lines.partition(b"\n")
        return line


def _asked(arguments: Sequence[str | Path], environment: Mapping[str, str]) -> bytes:
    given = [os.fsencode(one).decode("latin-1") for one in arguments]
    asked = {"arguments": given, "folder": str(Path.cwd()), "environment": dict(environment)}
    return json.dumps(asked).encode()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class _First:
    """The process that the others are forked from, and the way to ask it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Without the folder of this file, whose names are no modules of the program.
        command = [sys.executable, "-P", __file__, str(other.fileno()), *modules]
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, pass_fds=[other.fileno()], stdin=nothing, stdout=nothing
        )
        other.close()

    def end(self) -> None:
        """End it with the command that it may wait for."""
        # Here, as the process itself has no modules of tests.
        from processes import end_with_children  # noqa: PLC0415

        self.link.close()
        end_with_children(self._process.pid)
        self._process.wait()


@cache
def _first(*modules: str) -> _First:
    first = _First(modules)
    atexit.register(first.end)
    return first


@contextmanager
def _ended_if_it_fails(first: _First) -> Iterator[socket.socket]:
    """Give the way to ask; after a command that hung until its test was timed out, a new one."""
    try:
        yield first.link
    except BaseException:
        _first.cache_clear()
        atexit.unregister(first.end)
        first.end()
        raise


def _serve(link: socket.socket, modules: Sequence[str]) -> None:
    """Fork a process for each that is asked for; returns in these only, and at the end."""
    are_servers = tuple(modules) == _SERVERS
    for name in (*(f"framewalk.cli.{one}" for one in modules), *_LOADED_BY_SERVERS * are_servers):
        import_module(name)
    while True:
        content, descriptors, _, _ = socket.recv_fds(link, _LONGEST_BYTES, 2)
        if not content:
            sys.exit(0)
        child = os.fork()
        if child == 0:
            link.close()
            if are_servers:
                _wait_for_a_fork(*descriptors)
                descriptors = [1, descriptors[0]]
            _become(json.loads(content), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        if are_servers:
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        else:
            link.send(str(_exit_code(child)).encode())


def _wait_for_a_fork(stderr: int, telling: int) -> None:
    """Fork, and return in the fork only; tell its process id, and then its exit code."""
    child = os.fork()
    if child == 0:
        os.close(telling)
        return
    os.close(stderr)
    os.write(telling, b"%d\n" % child)
    os.write(telling, b"%d\n" % _exit_code(child))
    os._exit(0)


def _exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _become(asked: dict[str, object], descriptors: list[int]) -> None:
    for number, descriptor in enumerate(descriptors, start=1):
        if number != descriptor:
            os.dup2(descriptor, number)
            os.close(descriptor)
    os.chdir(str(asked["folder"]))
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[arg-type]
    given = [os.fsdecode(str(one).encode("latin-1")) for one in asked["arguments"]]  # type: ignore[attr-defined]
    sys.argv = [COMMAND, *given]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
    from framewalk.cli import program

    sys.exit(program())
