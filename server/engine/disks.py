"""The disks that spool and store are on: what they have, and whether the budgets fit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


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
