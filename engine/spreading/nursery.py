"""A process that workers are forked from: it has loaded what they need, and computed nothing.

    nursery = Nursery.forked()           # of this process, which has no threads yet
    nursery = Nursery.started()          # python -m framewalk.engine.spreading.nursery DESCRIPTOR

Its socket asks: for each worker that is wanted one end of another goes there, and the number of the
process comes back. What a worker reads and writes are files (local.py); through its socket go their
numbers. Whoever closes the first socket, or dies, ends all of them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from framewalk.engine.errors import FramewalkError
from framewalk.engine.processes import end_with_parent

# All that tasks are made of: what is loaded here no worker has to load.
from framewalk.engine.spreading import remade, stretches
from framewalk.engine.spreading.packing import pack, unpack

if TYPE_CHECKING:
    from framewalk.engine.spreading.pool import Task

# What a worker ends with that met something nobody thought of.
_FAULT: Final = 70
DONE: Final = b"done"
_LONGEST_PATH_BYTES: Final = 4_096
_LONGEST_START_S: Final = 300
_LOADED: Final = (remade, stretches)
_COMMAND: Final = (sys.executable, "-P", "-m", "framewalk.engine.spreading.nursery")
# One thread each, and an allocator that keeps what it will need again at once.
_ENVIRONMENT: Final = {
    "POLARS_MAX_THREADS": "1",
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:10000",
}


class Nursery:
    """The process as its parent sees it: `asking` is the parent's end of the socket."""

    def __init__(self, process: int, asking: socket.socket) -> None:
        self.asking = asking
        self._process = process
        asking.settimeout(_LONGEST_START_S)

    @classmethod
    def started(cls) -> Self:
        """Start one that loads what workers need. Raises OSError."""
        asking, asked = _sockets()
        with asked:
            try:
                started = subprocess.Popen(  # noqa: S603 - this Python, with a module of our own
                    [*_COMMAND, str(asked.fileno())],
                    pass_fds=[asked.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_ENVIRONMENT | os.environ,
                )
            except OSError:
                asking.close()
                raise
        # It is waited for by its number.
        started.returncode = 0
        return cls(started.pid, asking)

    @classmethod
    def forked(cls) -> Self:
        """Fork one of this process, which has loaded what workers need, and has no threads."""
        asking, asked = _sockets()
        child = os.fork()
        if not child:
            try:
                _leave_parents_files(asked.fileno())
                main(asked)
            finally:
                os._exit(_FAULT)
        asked.close()
        return cls(child, asking)

    def close(self, *, at_once: bool) -> None:
        """End it and all workers: those that are at something, too, if `at_once`."""
        self.asking.close()
        with suppress(ChildProcessError):
            if at_once:
                os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)


def _sockets() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _leave_parents_files(kept: int) -> None:
    """Close what the parent has open, but a socket and where errors are written."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for own in (0, 1):
        os.dup2(nowhere, own)
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A task, the numbers of those whose parts it needs, and that of its setup."""

    task: Task
    of: tuple[str, ...]
    setup: int


def main(asked: socket.socket) -> NoReturn:
    """Fork workers until nobody asks for one any more."""
    end_with_parent()
    # Ctrl-C in a terminal is for who has started this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        folder, descriptors, _, _ = socket.recv_fds(asked, _LONGEST_PATH_BYTES, 1)
        if not descriptors:
            break
        _reap(os.WNOHANG)
        child = os.fork()
        if not child:
            asked.close()
            end_with_parent()
            _work(Path(os.fsdecode(folder)), Connection(descriptors[0]))
        os.close(descriptors[0])
        asked.send(str(child).encode())
    # Then what they have used is told as what this one has.
    _reap(0)
    os._exit(0)


def _reap(options: int) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            continue


def _work(folder: Path, link: Connection) -> NoReturn:
    """Do tasks until nobody has one any more."""
    try:
        while (number := _next(link)) is not None:
            link.send_bytes(_done(folder, number))
    except BaseException:  # noqa: BLE001 - whoever waits sees that this process is gone
        if "FRAMEWALK_TRACEBACK" in os.environ:
            traceback.print_exc()
        os._exit(_FAULT)
    os._exit(0)


def _next(link: Connection) -> str | None:
    try:
        return link.recv_bytes().decode()
    except (EOFError, OSError):
        return None


def _done(folder: Path, number: str) -> bytes:
    """Do a task, and leave what comes of it in files; returns DONE, or a packed error."""
    try:
        asked: Asked = unpack(task_path(folder, number).read_bytes())
        parts = (parts_path(folder, one).read_bytes() for one in asked.of)
        made = asked.task.compute(_setup(setup_path(folder, asked.setup)), parts)
        parts_path(folder, number).write_bytes(made.parts)
        found_path(folder, number).write_bytes(pack(made.found))
    except (FramewalkError, OSError) as error:
        return pack(error)
    return DONE


@lru_cache(maxsize=1)
def _setup(path: Path) -> Any:  # noqa: ANN401 - of the kind of the tasks
    return unpack(path.read_bytes())


def setup_path(folder: Path, number: int) -> Path:
    """Return the file of what tasks are computed with."""
    return folder / f"{number}.setup"


def task_path(folder: Path, number: str) -> Path:
    """Return the file of a task."""
    return folder / f"{number}.task"


def found_path(folder: Path, number: str) -> Path:
    """Return the file with what was found in a task."""
    return folder / f"{number}.found"


def parts_path(folder: Path, number: str) -> Path:
    """Return the file with the parts of a task."""
    return folder / f"{number}.parts"


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
