"""Captured messages as tests write them down."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from framewalk.engine.captures.format import CAPTURE_SCHEMA

# Stream, number in the stream, time of arrival in ns since 1970, message.
Row = tuple[int, int, int, bytes]


def as_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[]] * len(CAPTURE_SCHEMA)
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, CAPTURE_SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=CAPTURE_SCHEMA)
