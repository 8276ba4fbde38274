"""HTTP logs out of an archive: what a store shows of them, as calls are made of them."""

from __future__ import annotations

from typing import Final

import polars as pl

from framewalk.engine.calls.logs import HTTP_LOGS_SCHEMA
from framewalk.engine.schemas import HTTP_METHODS, TRACE_PROVIDERS, UNKNOWN

_SIDES: Final = ("local", "remote")
_TRACE: Final = ("trace_id", "trace_segment_id", "trace_span_id")

# Of the view `http_logs`; a log without a path has its endpoint's, which patterns may have folded.
ARCHIVED_COLUMNS: Final = """
    epoch_ns("time") AS time_ns, duration_ns, epoch_ns(serving_start) AS serving_start_ns,
    serving_duration_ns, node, cluster, role, tls_mode, method, status_code,
    coalesce(path, substr(endpoint, length(method) + 2)) AS path,
    local_service, local_pod, local_address, local_port,
    remote_service, remote_pod, remote_address, remote_port,
    request_header_size_bytes, request_body_size_bytes,
    response_header_size_bytes, response_body_size_bytes,
    trace_provider, trace_id, trace_segment_id, trace_span_id
"""


def archived_logs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of ARCHIVED_COLUMNS as HTTP_LOGS_SCHEMA; `components` are not kept, and null."""
    is_pod = {side: pl.col(f"{side}_pod").ne_missing(UNKNOWN) for side in _SIDES}
    is_pod = {side: known & pl.col(f"{side}_pod").is_not_null() for side, known in is_pod.items()}
    has_trace = pl.col("trace_id").is_not_null() & (pl.col("trace_id") != "")
    return rows.with_columns(
        pl.col("method").replace_strict(_numbers(HTTP_METHODS), return_dtype=pl.Int32),
        pl.when(has_trace)
        .then(
            pl.col("trace_provider").replace_strict(
                _numbers(TRACE_PROVIDERS), default=None, return_dtype=pl.Int32
            )
        )
        .alias("trace_provider"),
        *(pl.when(has_trace).then(pl.col(name).fill_null("")).alias(name) for name in _TRACE),
        **{f"{side}_is_pod": known for side, known in is_pod.items()},
        **{
            f"{side}_pod": pl.when(known).then(f"{side}_pod").otherwise(f"{side}_address")
            for side, known in is_pod.items()
        },
        components=pl.lit(None, pl.Int64),
    ).select(pl.col(name).cast(dtype) for name, dtype in HTTP_LOGS_SCHEMA.items())


def _numbers(names: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}
