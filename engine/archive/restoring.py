"""After an older copy of a store was put back: files that were merged since are listed again.

A merged file says which files its rows are of, and those before them. Where a store lists files
that are gone, and one that is there has the rows of these and no others, it takes their place. What
has other rows beside is of logs that the store does not know: they come again, from the spool or
another replay, and would be there twice.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa

from framewalk.engine.archive.files import Origin, origin_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.archive.files import ArchivedFile, ArchiveFolder


def together(files: Iterable[ArchivedFile], folder: Path, *, is_sampled: bool) -> Origin:
    """Return the origin of the file that is made of some."""
    numbers, rows = set[int](), 0
    for file in files:
        origin = origin_of(folder / file.name)
        numbers |= {file.number} if origin is None else {file.number, *origin.files}
        rows += file.rows if origin is None else origin.rows
    return Origin(frozenset(numbers), rows, is_sampled)


def found_again(
    folder: ArchiveFolder, listed: Sequence[ArchivedFile]
) -> Iterator[tuple[ArchivedFile, list[ArchivedFile]]]:
    """Yield files that are not listed, and the listed ones that are gone and that each replaces."""
    names = {file.name for file in listed}
    missing = [file for file in listed if not (folder.path / file.name).exists()]
    if not missing:
        return
    # The last one first: it has the rows of those before it.
    for path in sorted(folder.own_files(), key=lambda one: one.stem, reverse=True):
        name = path.relative_to(folder.path).as_posix()
        origin = None if name in names else origin_of(path)
        own = [] if origin is None else _replaced_by(origin, missing)
        if origin is not None and own:
            with suppress(OSError, pa.ArrowException):
                new = folder.look(path, own[0], is_sampled=origin.is_sampled)
                missing = [file for file in missing if file not in own]
                yield new, own


def _replaced_by(origin: Origin, missing: Sequence[ArchivedFile]) -> list[ArchivedFile]:
    """Return the files that are gone and whose rows another has; none if it has others beside."""
    own = [file for file in missing if file.number in origin.files]
    # A sample of a file of any hours may be of any minutes.
    if origin.is_sampled and any(file.hour is None for file in own):
        return []
    # Of a sample nobody knows how many rows there were before.
    if any(file.is_sampled for file in own) or sum(file.rows for file in own) != origin.rows:
        return []
    return own
