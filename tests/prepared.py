"""Runs `framewalk` in processes that are forked from one that has loaded what commands need.

To load it takes most of the second of CPU time that a short command takes. What is forked is what
a start would be, at the place where `framewalk replay` itself forks the process that works.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO

COMMAND = str(Path(sys.executable).with_name("framewalk"))
_MODULES = ("entities", "export", "generate", "oal", "quarantine", "replay", "snapshot", "sql")
_LONGEST_BYTES = 1 << 17
_one_at_a_time = threading.Lock()


def framewalk(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with nothing to read; `environment` is added to this one's."""
    given = [os.fsencode(one).decode("latin-1") for one in arguments]
    asked = {
        "arguments": given,
        "folder": str(Path.cwd()),
        "environment": dict(os.environ) | environment,
    }
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        with _one_at_a_time:
            link = _first().link
            descriptors = [stdout.fileno(), stderr.fileno()]
            socket.send_fds(link, [json.dumps(asked).encode()], descriptors)
            told = link.recv(_LONGEST_BYTES)
        assert told, "the process that commands are forked from has ended"
        printed = _text(stdout), _text(stderr)
    return subprocess.CompletedProcess([COMMAND, *arguments], int(told), *printed)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


class _First:
    """The process that the others are forked from, and the way to ask it."""

    def __init__(self) -> None:
        self.link, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Without the folder of this file, whose names are no modules of the program.
        command = [sys.executable, "-P", __file__, str(other.fileno())]
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command, pass_fds=[other.fileno()], stdin=nothing, stdout=nothing
        )
        other.close()

    def end(self) -> None:
        self.link.close()
        self._process.wait()


@cache
def _first() -> _First:
    first = _First()
    atexit.register(first.end)
    return first


def _serve(link: socket.socket) -> None:
    """Fork a process for each that is asked for; returns in these only, and at the end."""
    for name in _MODULES:
        import_module(f"framewalk.cli.{name}")
    while True:
        content, descriptors, _, _ = socket.recv_fds(link, _LONGEST_BYTES, 2)
        if not content:
            sys.exit(0)
        child = os.fork()
        if child == 0:
            link.close()
            _become(json.loads(content), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        exit_code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        link.send(str(exit_code).encode())


def _become(asked: dict[str, object], descriptors: list[int]) -> None:
    for number, descriptor in enumerate(descriptors, start=1):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(str(asked["folder"]))
    os.environ.update(asked["environment"])  # type: ignore[arg-type]
    given = [os.fsdecode(str(one).encode("latin-1")) for one in asked["arguments"]]  # type: ignore[attr-defined]
    sys.argv = [COMMAND, *given]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from framewalk.cli import program

    sys.exit(program())
