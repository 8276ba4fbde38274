"""Everything framewalk raises on purpose, grouped by what the caller can do about it.

FramewalkError
├── InputError            the caller gave something unreadable: mend it and try again
│   ├── CaptureError      a capture file
│   ├── EntitiesError     a Kubernetes dump
│   ├── DefinitionError   an OAL file (engine/oal/diagnostics.py)
│   └── ConfigError       a configuration (server/config/files.py)
├── TableError            a table that engines share cannot be used, or is another's
│   └── TableAwayError    its storage does not answer: wait, it is tried again
├── WorkersError          processes that do the work cannot be started or reached
│   └── BrokenTaskError   those that were at the same have all ended
└── StoreError            the store cannot be used as it is; what it holds is untouched
    ├── DamagedLogsError  files of its archive: they are left out from now on, begin anew
    ├── StoreLockedError  another process has it open: wait, or stop that process
    ├── StoreMemoryError  DuckDB had no memory for it: ask less at a time, or give more
    ├── StoreRoomError    its disk is full: make room
    └── StoreVersionError written by a newer framewalk: upgrade
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike


class FramewalkError(Exception):
    """Base of all errors with a message meant for a person.

    The message is one line: `place: what is wrong; what to do`.
    """


class LocatedError(FramewalkError):
    """An error at a place: a file, and where in it if known."""

    def __init__(self, place: str | PathLike[str], problem: str, remedy: str) -> None:
        """Join the three parts into the one line that `str()` gives."""
        self.place = str(place)
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{self.place}: {problem}; {remedy}")

    def __reduce__(self) -> tuple[type[LocatedError], tuple[object, ...]]:
        """Have it be the same in another process."""
        return type(self), (self.place, self.problem, self.remedy)


class InputError(LocatedError):
    """An input could not be read."""


class CaptureError(InputError):
    """A file is not a capture that this version can read (capture.md)."""


class EntitiesError(InputError):
    """A Kubernetes dump is missing, malformed or of the wrong kind."""


class StoreError(LocatedError):
    """A store could not be opened or written; what it held before is unchanged."""


class DamagedLogsError(StoreError):
    """Archived logs turned out to be damaged; they are told, and left out from now on."""


class StoreLockedError(StoreError):
    """Another process holds the store."""


class StoreMemoryError(StoreError):
    """DuckDB had no memory for a statement; the transaction that it was in is undone."""


class StoreRoomError(StoreError):
    """The disk has no room for what was to be written; the transaction that it was in is undone."""


class StoreVersionError(StoreError):
    """The store was written by a newer framewalk."""


class TableError(LocatedError):
    """A table that engines share cannot be used by this one; what it holds is unchanged."""


class TableAwayError(TableError):
    """The storage of a table that engines share did not do what it was asked to."""


class WorkersError(LocatedError):
    """Processes that do the work cannot be started or reached."""


class BrokenTaskError(WorkersError):
    """Every process that was at a task has ended."""
