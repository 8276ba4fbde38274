"""Paths as they are given to public functions."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

_FOR_THE_USER_ONLY: Final = 0o077

Paths: TypeAlias = "str | Path | Iterable[str | Path]"


def each_path(paths: Paths) -> list[Path]:
    """Return every path; a string alone is one path, and not as many as it has characters."""
    if isinstance(paths, str | PathLike):
        return [Path(paths)]
    return [Path(path) for path in paths]


def keep_files_private() -> None:
    """Have files that this process makes from now on be 0600, and folders 0700, or closer.

    What senders wrote names services and addresses. Libraries make files too, so it is the process
    that is told; its children inherit it.
    """
    os.umask(os.umask(_FOR_THE_USER_ONLY) | _FOR_THE_USER_ONLY)
