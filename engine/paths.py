"""Paths as they are given to public functions."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

Paths: TypeAlias = "str | Path | Iterable[str | Path]"


def each_path(paths: Paths) -> list[Path]:
    """Return every path; a string alone is one path, and not as many as it has characters."""
    if isinstance(paths, str | PathLike):
        return [Path(paths)]
    return [Path(path) for path in paths]
