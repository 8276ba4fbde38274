"""Logs of connections that are not of HTTP, out of the archive: as clients saw them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.archive import NS_PER_MINUTE, Question
from framewalk.engine.calls import TCP_LOGS_SCHEMA, counted
from framewalk.engine.schemas import COMPONENT_IDS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from framewalk.engine.archive import ArchivedLogs

_TCP: Final = sum(1 << COMPONENT_IDS.index(one) for one in (110, 130))
_WHERE: Final = f"role = 'client' AND request IS NULL AND components & {_TCP} <> 0"
_POD: Final = f"CASE WHEN local_pod <> '{UNKNOWN}' THEN local_pod ELSE local_address END"
_BYTES: Final = "CASE WHEN operation = '{}' THEN {} ELSE 0 END"
_COLUMNS: Final = {
    "time_ns": 'epoch_ns("time")',
    "duration_ns": "duration_ns",
    "cluster": "cluster",
    "client_pod": _POD,
    "client_port": "local_port",
    "source_service": "local_service",
    "dest_service": "remote_service",
}
_COUNTS: Final = {
    "connection": {"connects": "1", "bytes_written": "0", "bytes_read": "0"},
    "transfer": {
        "connects": "0",
        "bytes_written": _BYTES.format("write", "l4_total_package_size_bytes"),
        "bytes_read": _BYTES.format("read", "l2_total_package_size_bytes"),
    },
}
_OPERATIONS: Final = {"connection": " AND operation = 'connect'", "transfer": ""}


def tcp_logs(logs: ArchivedLogs, minutes: Sequence[int], most: int) -> pl.DataFrame | None:
    """Return the logs of minutes that follow each other (TCP_LOGS_SCHEMA); None if too many."""
    if sum(_asked(logs, kind, minutes, "count(*)").item() for kind in _COUNTS) > most:
        return None
    found = [
        _asked(logs, kind, minutes, _listed({**_COLUMNS, **counts}))
        for kind, counts in _COUNTS.items()
    ]
    return pl.concat(rows.cast(TCP_LOGS_SCHEMA) for rows in found)


def tcp_as_called(logs: ArchivedLogs, minutes: Sequence[int]) -> pl.DataFrame:
    """Return the same added up, from unknown endpoints; for logs that are too many."""
    minute = f'epoch_ns("time") // {NS_PER_MINUTE} * {NS_PER_MINUTE}'
    alike = {**_COLUMNS, "time_ns": minute, "duration_ns": "0", "cluster": "''"}
    alike |= {"client_pod": "''", "client_port": "0"}
    found = [TCP_LOGS_SCHEMA.to_frame()]
    for kind, counts in _COUNTS.items():
        sums = {name: f"sum({count})::BIGINT" for name, count in counts.items()}
        rows = _asked(logs, kind, minutes, _listed({**alike, **sums}), "GROUP BY ALL")
        found.append(rows.cast(TCP_LOGS_SCHEMA))
    return counted(pl.concat(found).with_columns(source_endpoint=pl.lit(None, pl.String)))


def _asked(
    logs: ArchivedLogs, kind: str, minutes: Sequence[int], columns: str, grouped: str = ""
) -> pl.DataFrame:
    first_ns, end_ns = minutes[0] * NS_PER_MINUTE, (minutes[-1] + 1) * NS_PER_MINUTE
    where = _WHERE + _OPERATIONS[kind]
    return logs.rows(kind, first_ns, end_ns, Question(columns, where, grouped))


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
