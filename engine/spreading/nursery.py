"""A process that workers are forked from: it has loaded what they need, and computed nothing.

    python -m framewalk.engine.spreading.nursery DESCRIPTOR

The descriptor is a socket: for each worker that is wanted one end of another comes, and the number
of the process goes back. What a worker reads and writes are files (local.py); through its socket go
their numbers. Whoever closes the first socket, or dies, ends all of them.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from framewalk.engine.errors import FramewalkError
from framewalk.engine.processes import end_with_parent
from framewalk.engine.spreading.packing import pack, unpack
from framewalk.engine.spreading.stretches import Rolling, compute, rolled_up

if TYPE_CHECKING:
    from framewalk.engine.spreading.stretches import Setup

# What a worker ends with that met something nobody thought of.
_FAULT: Final = 70
DONE: Final = b"done"
SETUP: Final = "setup"
_LONGEST_PATH_BYTES: Final = 4_096


def main() -> None:
    """Fork workers until nobody asks for one any more."""
    end_with_parent()
    # Ctrl-C in a terminal is for who has started this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = socket.socket(fileno=int(sys.argv[1]))
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


def _reap(options: int) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, options)[0]:
            continue


def _work(folder: Path, link: Connection) -> NoReturn:
    """Do tasks until nobody has one any more."""
    try:
        setup: Setup = unpack((folder / SETUP).read_bytes())
        while (number := _next(link)) is not None:
            link.send_bytes(_done(folder, number, setup))
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


def _done(folder: Path, number: str, setup: Setup) -> bytes:
    """Do a task, and leave what comes of it in files; returns DONE, or a packed error."""
    try:
        task = unpack(task_path(folder, number).read_bytes())
        if isinstance(task, Rolling):
            parts = (parts_path(folder, one).read_bytes() for one in task.of)
            states = rolled_up(parts, setup, with_ahead=task.with_ahead)
            states_path(folder, number).write_bytes(pack(states))
            return DONE
        made = compute(task, setup)
        parts_path(folder, number).write_bytes(made.parts)
        found_path(folder, number).write_bytes(pack(made.found))
    except (FramewalkError, OSError) as error:
        return pack(error)
    return DONE


def task_path(folder: Path, number: str) -> Path:
    """Return the file of a task."""
    return folder / f"{number}.task"


def found_path(folder: Path, number: str) -> Path:
    """Return the file with what was found in a stretch, or with an error."""
    return folder / f"{number}.found"


def parts_path(folder: Path, number: str) -> Path:
    """Return the file with the states of a stretch by peers."""
    return folder / f"{number}.parts"


def states_path(folder: Path, number: str) -> Path:
    """Return the file with states that were rolled up."""
    return folder / f"{number}.states"


if __name__ == "__main__":
    main()
