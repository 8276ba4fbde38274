"""HTTP logs out of an archive: what a store shows of them, as calls are made of them."""

from __future__ import annotations

from typing import Final

import polars as pl

from framewalk.engine.calls.logs import as_http_logs
from framewalk.engine.schemas import HTTP_METHODS, TRACE_PROVIDERS

# Of the view `http_logs`; a log without a path has its endpoint's, which patterns may have folded.
# A trace is there as a whole or not at all.
ARCHIVED_COLUMNS: Final = """
    epoch_ns("time") AS time_ns, duration_ns, epoch_ns(serving_start) AS serving_start_ns,
    serving_duration_ns, node, cluster, role, tls_mode, method, status_code,
    coalesce(path, substr(endpoint, length(method) + 2)) AS path,
    local_service, local_pod AS local_instance, local_address, local_port,
    remote_service, remote_pod AS remote_instance, remote_address, remote_port,
    request_header_size_bytes, request_body_size_bytes,
    response_header_size_bytes, response_body_size_bytes,
    trace_provider, trace_id,
    coalesce(trace_segment_id, '') AS trace_segment_id, coalesce(trace_span_id, '') AS trace_span_id
"""


def archived_logs(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of ARCHIVED_COLUMNS as HTTP_LOGS_SCHEMA.

    `components` are null if the rows do not have them; the view does not show them.
    """
    if "components" not in rows.columns:
        rows = rows.with_columns(components=pl.lit(None, pl.Int64))
    return as_http_logs(
        rows.with_columns(
            _number("method", HTTP_METHODS), _number("trace_provider", TRACE_PROVIDERS)
        )
    )


def _number(name: str, members: tuple[str, ...]) -> pl.Expr:
    numbers = {member: number for number, member in enumerate(members)}
    return pl.col(name).replace_strict(numbers, default=None, return_dtype=pl.Int32)
