"""Many small files of an hour -> one, with the rows of each edge together again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from framewalk.engine.archive.files import open_file
from framewalk.engine.archive.minutes import NEAR_MINUTES, NS_PER_MINUTE
from framewalk.engine.archive.schema import EDGE, HTTP, TABLES, TIME, arrow_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.archive.files import ArchivedFile

# A file of more is left as it is, and merged files have at most about so much.
TARGET_BYTES: Final = 8 * 2**20
# Of an hour that still gets logs so many files are merged at once, of others all.
_OPEN_FILES: Final = 96
_CLOSED_FILES: Final = 2
# A file that is so many times as large as all smaller ones together waits for more of them.
_MUCH: Final = 2
# What is sorted at once, and held: the rows of most logs, the bytes of those with long texts.
_SORTED_ROWS: Final = 131_072
_SORTED_BYTES: Final = 32 * 2**20
_READ_ROWS: Final = 8_192
_NS_PER_HOUR: Final = 3600 * 10**9
# Texts that hardly two rows have: as numbers of a dictionary they cost more, and take more room.
_UNLIKE: Final = frozenset({"trace_id", "trace_segment_id", "trace_span_id"})


def chosen(
    files: Iterable[ArchivedFile],
    is_closed: Callable[[int | None], bool],
    *,
    grows_slowly: bool,
) -> list[ArchivedFile]:
    """Return the files to merge next, of one kind and hour; none where there are too few.

    All are sampled, or none.

    If it grows slowly only files that are not much larger than the smaller ones together, so that
    a row is not written again with each merge, nor an hour that is over with each late log.
    """
    groups: dict[tuple[str, int | None, bool], list[ArchivedFile]] = {}
    for file in files:
        if file.size_bytes < TARGET_BYTES // 2:
            alike = file.kind, file.hour, bool(file.is_sampled)
            groups.setdefault(alike, []).append(file)
    best: list[ArchivedFile] = []
    for (_, hour, _), group in groups.items():
        fewest = _CLOSED_FILES if is_closed(hour) else _OPEN_FILES
        taken = _within(group, fewest, grows_slowly=grows_slowly)
        if len(taken) >= fewest and len(taken) > len(best):
            best = taken
    return sorted(best, key=lambda file: (file.first_ns, file.number))


def to_sample(readable: Iterable[ArchivedFile], open_hour: int | None) -> list[ArchivedFile]:
    """Return the files of requests that are not sampled yet, of hours (since 1970) that are over.

    Without `open_hour` all are.
    """
    return [
        file
        for file in readable
        if file.kind == HTTP
        and not file.is_sampled
        and (open_hour is None or file.last_ns // _NS_PER_HOUR < open_hour)
    ]


def due_for_sampling(files: Iterable[ArchivedFile], changed: Sequence[int]) -> list[ArchivedFile]:
    """Return files of one hour, the first by time, near none of whose requests a minute is changed.

    `changed` are minutes (since 1970, in order) of which something is to be made first.
    """
    taken: list[ArchivedFile] = []
    total_bytes = 0
    for file in sorted(files, key=lambda one: (one.hour is None, one.first_ns, one.number)):
        first = min(file.first_ns, file.served_ns[0]) // NS_PER_MINUTE - NEAR_MINUTES
        # What began to be served then goes on for another minute at most, or is kept.
        last = max(file.last_ns, file.served_ns[1]) // NS_PER_MINUTE + 1 + NEAR_MINUTES
        if bisect_left(changed, first) < bisect_right(changed, last):
            continue
        if taken and (file.hour != taken[0].hour or total_bytes + file.size_bytes > TARGET_BYTES):
            break
        taken.append(file)
        total_bytes += file.size_bytes
    return taken


def _within(
    group: Sequence[ArchivedFile], fewest: int, *, grows_slowly: bool
) -> list[ArchivedFile]:
    taken: list[ArchivedFile] = []
    total_bytes = 0
    for file in sorted(group, key=lambda one: one.size_bytes):
        is_much_larger = grows_slowly and file.size_bytes > max(_MUCH * total_bytes, 2**16)
        if taken and is_much_larger and len(taken) < fewest:
            taken, total_bytes = [], 0
        elif taken and is_much_larger:
            break
        if total_bytes + file.size_bytes > TARGET_BYTES:
            break
        taken.append(file)
        total_bytes += file.size_bytes
    return taken


def merged(
    kind: str,
    paths: Iterable[Path],
    on_progress: Callable[[], None],
    rows: int = _SORTED_ROWS,
    change: Callable[[pa.Table], pa.Table] = lambda table: table,
) -> Iterator[pa.Table]:
    """Yield the rows of files as `change` returns them, each table sorted by edge and time.

    A table has about so many rows, or fewer where they are large.
    """
    texts = [
        column.name
        for column in TABLES[kind]
        if pa.types.is_string(column.type) and column.name not in _UNLIKE
    ]
    waiting: list[pa.Table] = []
    count = size_bytes = 0
    for path in paths:
        with open_file(path, texts) as file:
            for batch in file.iter_batches(min(rows, _READ_ROWS), use_threads=False):
                waiting.append(_as_now(kind, pa.Table.from_batches([batch])))
                count += batch.num_rows
                size_bytes += batch.nbytes
                if count >= rows or size_bytes >= _SORTED_BYTES:
                    yield from _sorted(kind, change(pa.concat_tables(waiting)))
                    on_progress()
                    waiting, count, size_bytes = [], 0, 0
    if waiting:
        yield from _sorted(kind, change(pa.concat_tables(waiting)))


def is_readable(kind: str, path: Path) -> bool:
    """Tell whether all rows of a file can be read."""
    try:
        for _ in merged(kind, [path], lambda: None):
            pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _as_now(kind: str, table: pa.Table) -> pa.Table:
    """Have the columns that an earlier version wrote as narrower numbers, or not at all."""
    types = {field.name: field.type for field in table.schema}
    for column in TABLES[kind]:
        if column.name not in types:
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
        elif pa.types.is_integer(column.type) and types[column.name] != column.type:
            place = table.schema.get_field_index(column.name)
            values = table[column.name].cast(column.type)
            table = table.set_column(place, column.name, values)
    return table


def _sorted(kind: str, table: pa.Table) -> Iterator[pa.Table]:
    if not table.num_rows:
        return
    table = table.unify_dictionaries().combine_chunks()
    names = [field.name for field in arrow_schema(kind)]
    # A text is the same as its number here, so no text is compared but those of distinct edges.
    numbers = {name: pl.Series(table[name].chunk(0).indices) for name in EDGE}
    texts = {name: pl.Series(table[name].chunk(0).dictionary.cast(pa.string())) for name in EDGE}
    edges = pl.DataFrame(numbers)
    distinct = edges.unique()
    order = distinct.select(
        pl.arg_sort_by(texts[name].gather(distinct[name]) for name in EDGE)
    ).to_series()
    ranked = distinct.select(pl.all().gather(order)).with_row_index("rank")
    rank = edges.join(ranked, on=EDGE, how="left", nulls_equal=True, maintain_order="left")
    times = pl.Series(table[TIME].cast(pa.int64()))
    rows = pl.DataFrame({"rank": rank["rank"], "time": times}).select(
        pl.arg_sort_by("rank", "time", maintain_order=True)
    )
    yield table.select(names).take(rows.to_series().to_arrow())
