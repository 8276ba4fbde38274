"""Paths as they are given to public functions."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from framewalk.engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from framewalk.engine.errors import LocatedError

_FOR_THE_USER_ONLY: Final = 0o077

Paths: TypeAlias = "str | Path | Iterable[str | Path]"


# What Linux lets a name have, and a path with all its folders.
_LONGEST_NAME_BYTES: Final = 255
_LONGEST_PATH_BYTES: Final = 4_095


def one_path(path: str | PathLike[str], error: type[LocatedError] = InputError) -> Path:
    """Return a path that can be one of a file; raises `error` where no file can be called so."""
    named = Path(path)
    written = os.fsencode(named)
    if b"\0" in written:
        raise error(ascii(str(named)), "a name cannot have a NUL in it", "name it otherwise")
    longest = max(map(len, written.split(b"/")))
    if longest > _LONGEST_NAME_BYTES or len(written) > _LONGEST_PATH_BYTES:
        place = f"{str(named)[:50]}..."
        raise error(place, "this is too long for the name of a file", "check the path")
    return named


def each_path(paths: Paths) -> list[Path]:
    """Return every path; a string alone is one path, and not as many as it has characters.

    Raises InputError as one_path does.
    """
    if isinstance(paths, str | PathLike):
        return [one_path(paths)]
    return [one_path(path) for path in paths]


def keep_files_private() -> None:
    """Have files that this process makes from now on be 0600, and folders 0700, or closer.

    What senders wrote names services and addresses. Libraries make files too, so it is the process
    that is told; its children inherit it.
    """
    os.umask(os.umask(_FOR_THE_USER_ONLY) | _FOR_THE_USER_ONLY)
