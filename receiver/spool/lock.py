"""One process may write into a folder: a file in it says which."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import InputError
from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from pathlib import Path

LOCK_NAME: Final = "lock"


class SpoolLockedError(InputError):
    """Another process writes into the spool."""


class FolderLock:
    """Takes a folder for this process; the system gives it back however the process ends.

    Raises SpoolLockedError where another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = _lock(folder)

    def keep(self) -> None:
        """Make the folder again if it was removed, and take it before anybody else does.

        Raises SpoolLockedError where somebody was faster, OSError where there can be no folder.
        """
        with suppress(FileNotFoundError):
            there = (self._folder / LOCK_NAME).stat()
            if os.path.samestat(there, os.fstat(self._descriptor)):
                return
        self._folder.mkdir(parents=True, exist_ok=True)
        gone, self._descriptor = self._descriptor, _lock(self._folder)
        os.close(gone)
        tell(logging.WARNING, "spool folder was removed, it is made again", folder=self._folder)

    def release(self) -> None:
        """Give the folder back."""
        os.close(self._descriptor)


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 20).decode(errors="replace")
        os.close(descriptor)
        problem = f"another process{f' ({owner})' if owner else ''} records into this spool"
        raise SpoolLockedError(folder, problem, "stop it, or name another spool") from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor
