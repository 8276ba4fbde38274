"""Reading a capture file row by row."""

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa


class Row(NamedTuple):
    """One message as it came."""

    stream: int
    seq: int
    received_at_ns: int
    message: bytes


def read_capture_rows(path: str | Path) -> list[Row]:
    """Return the rows of a capture in file order, up to a torn tail."""
    rows: list[Row] = []
    with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
        try:
            for batch in reader:
                rows.extend(_rows_of(batch))
        except (pa.ArrowInvalid, OSError):
            return rows
    return rows


def _rows_of(batch: pa.RecordBatch) -> list[Row]:
    columns = (
        batch.column("stream"),
        batch.column("seq"),
        batch.column("received_at").cast(pa.timestamp("ns", "UTC")).cast(pa.int64()),
        batch.column("message"),
    )
    return [Row(*values) for values in zip(*(c.to_pylist() for c in columns), strict=True)]
