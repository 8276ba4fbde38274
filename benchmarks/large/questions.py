"""What people ask of a store, as SQL: the questions whose time is measured at any size."""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from framewalk.engine import open_for_reading
from framewalk.queries.narrowing import readable
from framewalk.queries.reading import ArrowAnswer, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import duckdb

_ROUNDS: Final = 9
_MOST_ROWS: Final = 1_000_000
# What the questions name, beside the times and the services of an edge.
_RANGES: Final = {"hour": 1, "six_hours": 6, "day": 24}

QUESTIONS: Final[Mapping[str, str]] = {
    "map of the last 6 hours": """
        SELECT source_service, dest_service, kubernetes_service_relation_server_http_call_cpm,
          kubernetes_service_relation_server_http_success_cpm, p99
        FROM service_relation_between({six_hours})
        LEFT JOIN service_relation_percentiles_between(
          {six_hours}, 'kubernetes_service_relation_server_http_latency_ns_percentile'
        ) USING (source_service, dest_service)
    """,
    "one metric of one edge, 6 hours of minutes": """
        SELECT time_bucket, kubernetes_service_relation_server_http_call_cpm
        FROM service_relation_minute
        WHERE source_service = '{source}' AND dest_service = '{dest}'
          AND time_bucket >= TIMESTAMP '{until}' - INTERVAL 6 HOURS
        ORDER BY time_bucket
    """,
    "top 10 services of an hour": """
        SELECT service, p99 AS p99_ns
        FROM service_percentiles_between({hour}, 'kubernetes_service_http_latency_ns_percentile')
        ORDER BY p99_ns DESC NULLS LAST LIMIT 10
    """,
    "all metrics of one edge, an hour": """
        SELECT * FROM service_relation_minute
        WHERE source_service = '{source}' AND dest_service = '{dest}'
          AND time_bucket >= TIMESTAMP '{until}' - INTERVAL 1 HOUR
        ORDER BY time_bucket
    """,
    "p99 of every edge, 24 hours": """
        SELECT source_service, dest_service, p99
        FROM service_relation_percentiles_between(
          {day}, 'kubernetes_service_relation_server_http_latency_ns_percentile'
        )
    """,
    "metric_values of one edge and metric": """
        SELECT time_bucket, value FROM metric_values
        WHERE metric = 'kubernetes_service_relation_server_http_call_cpm'
          AND resolution = 'minute' AND entity = '{source} -> {dest}'
          AND time_bucket >= TIMESTAMP '{until}' - INTERVAL 1 HOUR
        ORDER BY time_bucket
    """,
}
# Of the newest minute alone: to look through all takes more memory than the questions.
_EDGE_OF: Final = """
    SELECT min((source_service, dest_service))
    FROM service_relation_between(TIMESTAMP '{until}' - INTERVAL 1 MINUTE, TIMESTAMP '{until}')
"""
_UNTIL: Final = "SELECT max(minute) + INTERVAL 1 MINUTE FROM internal.newest"


@dataclass(frozen=True, slots=True)
class Asked:
    """What one answer took, in the median of some rounds, when the file had been read before."""

    cpu_s: float
    elapsed_s: float
    rows: int


def ask_all(store: Path, *, plain: bool = False) -> dict[str, Asked]:
    """Ask every question of a store that is at rest, with two threads.

    They are answered as a server does, all but HTTP; `plain` is by DuckDB alone.
    """
    with open_for_reading(store) as connection:
        connection.execute("SET threads = 2")
        ((until,),) = connection.sql(_UNTIL).fetchall()
        ((edge,),) = connection.sql(_EDGE_OF.format(until=until)).fetchall()
        source, dest = edge.values() if isinstance(edge, dict) else edge
        names = {"until": until, "source": source, "dest": dest} | {
            name: f"TIMESTAMP '{until}' - INTERVAL {hours} HOURS, TIMESTAMP '{until}'"
            for name, hours in _RANGES.items()
        }
        answer = (
            partial(_plain, connection)
            if plain
            else partial(_served, connection, Sandbox(connection))
        )
        return {name: _ask(answer, sql.format(**names)) for name, sql in QUESTIONS.items()}


def _plain(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    return connection.sql(sql).arrow().read_all()


def _served(connection: duckdb.DuckDBPyConnection, sandbox: Sandbox, sql: str) -> pa.Table:
    connection.execute("BEGIN TRANSACTION READ ONLY")
    found = readable(connection, sandbox.checked(connection, sql))
    content = b"".join(ArrowAnswer().chunks(connection, found, _MOST_ROWS))
    connection.rollback()
    return pa.ipc.open_stream(content).read_all()


def _ask(answer: Callable[[str], pa.Table], sql: str) -> Asked:
    rows = answer(sql).num_rows
    assert rows, f"no rows: {sql}"
    samples = []
    for _ in range(_ROUNDS):
        began_s, began_cpu_s = time.perf_counter(), _cpu_s()
        answer(sql)
        samples.append((_cpu_s() - began_cpu_s, time.perf_counter() - began_s))
    cpu_s, elapsed_s = (statistics.median(one) for one in zip(*samples, strict=True))
    return Asked(cpu_s, elapsed_s, rows)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
