"""Many small files of an hour -> one, with the rows of each edge together again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from framewalk.engine.archive.schema import EDGE, TABLES, TIME, arrow_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from framewalk.engine.archive.files import ArchivedFile

# A file of more is left as it is, and merged files have at most about so much.
TARGET_BYTES: Final = 8 * 2**20
# Of an hour that still gets logs so many files are merged at once, of others all.
_OPEN_FILES: Final = 96
_CLOSED_FILES: Final = 2
# What is sorted at once, and held: the rows of most logs, the bytes of those with long texts.
_SORTED_ROWS: Final = 131_072
_SORTED_BYTES: Final = 32 * 2**20
_READ_ROWS: Final = 8_192


def chosen(
    files: Iterable[ArchivedFile],
    is_closed: Callable[[int | None], bool],
    *,
    grows_slowly: bool,
) -> list[ArchivedFile]:
    """Return the files to merge next, all of one kind and hour; none where there are too few.

    If it grows slowly only files that are not much larger than the smaller ones together, so that
    a row is not written again with each merge, nor an hour that is over with each late log.
    """
    groups: dict[tuple[str, int | None], list[ArchivedFile]] = {}
    for file in files:
        if file.size_bytes < TARGET_BYTES // 2:
            groups.setdefault((file.kind, file.hour), []).append(file)
    best: list[ArchivedFile] = []
    for (_, hour), group in groups.items():
        fewest = _CLOSED_FILES if is_closed(hour) else _OPEN_FILES
        alike = _within(group, fewest, grows_slowly=grows_slowly)
        if len(alike) >= fewest and len(alike) > len(best):
            best = alike
    return sorted(best, key=lambda file: (file.first_ns, file.number))


def _within(
    group: Sequence[ArchivedFile], fewest: int, *, grows_slowly: bool
) -> list[ArchivedFile]:
    taken: list[ArchivedFile] = []
    total_bytes = 0
    for file in sorted(group, key=lambda one: one.size_bytes):
        is_much_larger = grows_slowly and file.size_bytes > max(total_bytes, 2**16)
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
    kind: str, paths: Iterable[Path], on_progress: Callable[[], None], rows: int = _SORTED_ROWS
) -> Iterator[pa.Table]:
    """Yield the rows of files, each table sorted by edge and time.

    A table has about so many rows, or fewer where they are large.
    """
    texts = [column.name for column in TABLES[kind] if pa.types.is_string(column.type)]
    waiting: list[pa.Table] = []
    count = size_bytes = 0
    for path in paths:
        with pq.ParquetFile(path, read_dictionary=texts, page_checksum_verification=True) as file:
            for batch in file.iter_batches(min(rows, _READ_ROWS), use_threads=False):
                waiting.append(_as_now(kind, pa.Table.from_batches([batch])))
                count += batch.num_rows
                size_bytes += batch.nbytes
                if count >= rows or size_bytes >= _SORTED_BYTES:
                    yield _sorted(kind, waiting)
                    on_progress()
                    waiting, count, size_bytes = [], 0, 0
    if waiting:
        yield _sorted(kind, waiting)


def is_readable(kind: str, path: Path) -> bool:
    """Tell whether all rows of a file can be read."""
    try:
        for _ in merged(kind, [path], lambda: None):
            pass
    except (OSError, pa.ArrowException):
        return False
    return True


def _as_now(kind: str, table: pa.Table) -> pa.Table:
    """Widen the columns that an earlier version wrote as narrower numbers."""
    for column in TABLES[kind]:
        if pa.types.is_integer(column.type) and table[column.name].type != column.type:
            place = table.schema.get_field_index(column.name)
            values = table[column.name].cast(column.type)
            table = table.set_column(place, column.name, values)
    return table


def _sorted(kind: str, tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
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
    return table.select(names).take(rows.to_series().to_arrow())
