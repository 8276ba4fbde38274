"""The disks that spool and store are on: whether the budgets fit, and room kept for a full one.

Beside the store there is a reserve. An engine that cannot write gives it up: with that room the
next one opens the store, deletes what is to be deleted, and goes on. It is taken again when there
is room.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.engine.telling import tell

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# A small disk has better use for its room.
_MOST_SHARE: Final = 16
_REMEDY: Final = "make room on the disk, or set lower budgets"


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: its number, its size, and what an ordinary user may still write to it."""

    device: int
    size_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class DiskBudget:
    """What something may take of the disk that `path` is on, or will be, and takes by now.

    `name` is the setting that bounds it, or what it is where nothing can be set.
    """

    name: str
    path: Path
    budget_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """Budgets that are more than their disk has for them: `has_bytes`, with what they take now."""

    budgets: tuple[DiskBudget, ...]
    has_bytes: int


def disk_of(path: Path) -> Disk:
    """Return the disk that a path is on, or would be on if it were made."""
    there = path.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    found = os.statvfs(there)
    device = there.stat().st_dev
    return Disk(device, found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def shortages(budgets: Sequence[DiskBudget]) -> Iterator[Shortage]:
    """Yield the budgets that do not fit, one shortage a disk."""
    by_device: dict[int, list[DiskBudget]] = {}
    free_bytes: dict[int, int] = {}
    for budget in budgets:
        disk = disk_of(budget.path)
        by_device.setdefault(disk.device, []).append(budget)
        free_bytes[disk.device] = disk.free_bytes
    for device, own in by_device.items():
        has_bytes = free_bytes[device] + sum(one.used_bytes for one in own)
        if sum(one.budget_bytes for one in own) > has_bytes:
            yield Shortage(tuple(own), has_bytes)


def reserve_path(store_path: Path) -> Path:
    """Return where the reserve of a store is."""
    return store_path.with_name(f"{store_path.name}.reserve")


def reserve_bytes(store_path: Path, wanted_bytes: int) -> int:
    """Return the size of a reserve: what is wanted, or a sixteenth of the disk if that is less."""
    return min(wanted_bytes, disk_of(store_path.parent).size_bytes // _MOST_SHARE)


class Reserve:
    """A file that takes `size_bytes` of the store's disk; 0 is none."""

    def __init__(self, store_path: Path, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._path = reserve_path(store_path)
        self._problem = ""

    @property
    def is_missing(self) -> bool:
        """Tell whether there ought to be a reserve and is none."""
        return self._there_bytes() < self.size_bytes

    def release(self, why: str) -> bool:
        """Give the room back to the disk; returns whether there was any."""
        try:
            # One that was just being taken has no size yet, but its room.
            self._path.unlink()
        except FileNotFoundError:
            return False
        facts = {"path": self._path, "bytes": self.size_bytes, "problem": why, "remedy": _REMEDY}
        tell(logging.ERROR, "disk is full, the reserve is given up", **facts)
        return True

    def release_if_full(self) -> None:
        """Give it up before the store is opened, where less than that is free."""
        free_bytes = disk_of(self._path.parent).free_bytes
        if free_bytes < self.size_bytes:
            self.release(f"only {free_bytes:,} bytes are free")

    def restore(self, left_bytes: int) -> None:
        """Take the room, if so much is free beside it."""
        there_bytes = self._there_bytes()
        if there_bytes == self.size_bytes:
            return
        free_bytes = disk_of(self._path.parent).free_bytes + there_bytes
        if free_bytes < self.size_bytes + left_bytes:
            self._tell_of(f"only {free_bytes:,} bytes are free")
            return
        try:
            self._take()
        except OSError as error:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self._tell_of((error.strerror or str(error)).lower())
            return
        self._problem = ""
        tell(logging.INFO, "reserve taken", path=self._path, bytes=self.size_bytes)

    def _take(self) -> None:
        if not self.size_bytes:
            self._path.unlink()
            return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self.size_bytes)
            os.ftruncate(descriptor, self.size_bytes)
        finally:
            os.close(descriptor)

    def _there_bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def _tell_of(self, problem: str) -> None:
        if not self._problem:
            self._problem = problem
            facts = {"bytes": self.size_bytes, "problem": problem, "remedy": _REMEDY}
            tell(logging.WARNING, "no room for a reserve", **facts)
