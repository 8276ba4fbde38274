"""HTTP logs as calls are made of them: one row a log, with both sides of its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from framewalk.engine.schemas import UNKNOWN
from framewalk.engine.stages import (
    Carried,
    concat_logs,
    connection_sides,
    decode,
    flatten,
    follow_streams,
    resolve,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.stages import LogFrames

_TRACE: Final = ("trace_provider", "trace_id", "trace_segment_id", "trace_span_id")

# Times are event times by the clock of `node`; both of `serving` are null where nothing tells them.
# `local_pod` and `remote_pod` say who is there: the name of a Pod as sent, else as its address
# resolves, else the address; `..._is_pod` whether it is a name. `method` is the number of the
# protocol; a trace is null where there is none.
HTTP_LOGS_SCHEMA: Final = pl.Schema(
    {
        "time_ns": pl.Int64,
        "duration_ns": pl.Int64,
        "serving_start_ns": pl.Int64,
        "serving_duration_ns": pl.Int64,
        "node": pl.String,
        "cluster": pl.String,
        "role": pl.String,
        "local_service": pl.String,
        "local_pod": pl.String,
        "local_is_pod": pl.Boolean,
        "local_port": pl.Int32,
        "remote_service": pl.String,
        "remote_pod": pl.String,
        "remote_is_pod": pl.Boolean,
        "remote_port": pl.Int32,
        "tls_mode": pl.String,
        "components": pl.Int64,
        "method": pl.Int32,
        "path": pl.String,
        "status_code": pl.Int32,
        "request_header_size_bytes": pl.Int64,
        "request_body_size_bytes": pl.Int64,
        "response_header_size_bytes": pl.Int64,
        "response_body_size_bytes": pl.Int64,
        "trace_provider": pl.Int32,
        "trace_id": pl.String,
        "trace_segment_id": pl.String,
        "trace_span_id": pl.String,
    }
)


def read_http_logs(batches: Iterable[pa.RecordBatch], entities: Entities) -> pl.DataFrame:
    """Return the HTTP logs in captured messages that count, as HTTP_LOGS_SCHEMA.

    `batches` have the columns of CAPTURE_SCHEMA and follow each other as in their capture.
    """
    parts = [HTTP_LOGS_SCHEMA.to_frame()]
    carried = Carried()
    for batch in batches:
        for decoded in decode(pa.Table.from_batches([batch])):
            found = []
            for context in follow_streams(decoded.captured, decoded.nested, carried):
                carried = context.carried
                found.append(flatten(context, serving=True, to_keep=True))
            if found:
                parts.append(_http_logs(concat_logs(found), entities))
    return pl.concat(parts)


def _http_logs(logs: LogFrames, entities: Entities) -> pl.DataFrame:
    resolved = resolve(logs, entities)
    http = resolved.operations["http"]
    peers = resolved.peers[http["peer"]]
    sides = connection_sides(logs.connections)[http["connection"]]
    rows = pl.concat([http, peers, sides], how="horizontal")
    return as_http_logs(rows)


def as_http_logs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows as HTTP_LOGS_SCHEMA.

    They have its columns; in place of those of Pods `local_instance` and `local_address`, and the
    same of the remote side, and a trace may have an empty id.
    """
    has_trace = pl.col("trace_id") != ""
    return rows.with_columns(
        **{f"{side}_is_pod": _is_pod(side) for side in ("local", "remote")},
        **{f"{side}_pod": _pod(side) for side in ("local", "remote")},
        **{name: pl.when(has_trace).then(name) for name in _TRACE},
    ).select(pl.col(name).cast(dtype) for name, dtype in HTTP_LOGS_SCHEMA.items())


def _is_pod(side: str) -> pl.Expr:
    return pl.col(f"{side}_instance").ne_missing(UNKNOWN) & pl.col(f"{side}_instance").is_not_null()


def _pod(side: str) -> pl.Expr:
    return pl.when(_is_pod(side)).then(f"{side}_instance").otherwise(f"{side}_address")


def as_numbers(logs: pl.DataFrame) -> pl.DataFrame:
    """Return logs with numbers in place of texts, in the order of the texts.

    What compares and sorts logs does so faster then. The role stays as it is.
    """
    texts = [name for name, dtype in HTTP_LOGS_SCHEMA.items() if dtype == pl.String]
    alike: list[tuple[str, ...]] = [
        ("local_pod", "remote_pod"),
        ("local_service", "remote_service"),
    ]
    shared = {name for names in alike for name in (*names, "role")}
    alike += [(name,) for name in texts if name not in shared]
    numbered = []
    for names in alike:
        every = pl.concat([logs[name].unique().rename("") for name in names]).unique()
        order = pl.Enum(every.drop_nulls().sort())
        numbered += [pl.col(name).cast(order).to_physical() for name in names]
    return logs.with_columns(numbered)
