"""What goes from an archive to others: files as they were written, and minutes that are not whole.

It is given to the outbound of the store, in the transaction that lists the files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.states import MINUTE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from framewalk.engine.archive.files import ArchivedFile
    from framewalk.engine.store import Store

# Minutes of which requests alone are archived, and of which logs are not.
REQUESTS_ONLY: Final = "requests_only"
UNARCHIVED: Final = "unarchived"


def hand_over(
    store: Store,
    folder: Path,
    files: Iterable[ArchivedFile],
    notes: dict[str, Collection[int]],
) -> None:
    """Give files of a folder, and minutes (since 1970) by what is noted of them."""
    outbound = store.outbound
    if outbound is None or not outbound.takes_logs:
        return
    for file in files:
        outbound.add_file(file.kind, file.rows, (folder / file.name).read_bytes())
    for note, minutes in notes.items():
        if minutes:
            rows = pl.DataFrame({MINUTE: sorted(minutes)}, {MINUTE: pl.Int64})
            outbound.add(note, rows)
