"""Queries over hours of minutes, beside the same SQL over tables of finished values.

A backend that stores finished values reads what it stored; the views here merge and finish
states each time. The rival's tables hold the rows of the views under the same names.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import duckdb
from frame.contest import Answer, Benchmark, Call, Contest, Rival, text_answer
from frame.hours import write_hours

from framewalk.engine import open_for_reading

if TYPE_CHECKING:
    from pathlib import Path

    from frame.contest import Context

_TABLES: Final = (
    "service_minute",
    "service_relation_minute",
    "service_relation_hour",
    "service_relation_day",
    "endpoint_minute",
)
MAP_HOURS: Final = 6
DAY_OF_RELATIONS: Final = """
SELECT source_service, dest_service, kubernetes_service_relation_server_percentile.p99 AS p99_ms
FROM service_relation_day
"""
# Minute by minute, as tables of finished values can answer it.
SLOWEST_ENDPOINTS: Final = """
SELECT
  service,
  endpoint,
  sum(kubernetes_service_endpoint_http_call_cpm) AS requests,
  sum(kubernetes_service_endpoint_http_call_duration)
    // sum(kubernetes_service_endpoint_http_call_cpm) AS average_ms,
  max(kubernetes_service_endpoint_http_call_time) AS slowest_minute_ms,
  round(max(kubernetes_service_endpoint_http_latency_ns_percentile.p99) / 1e6, 2)
    AS slowest_p99_ms,
  round(100 * coalesce(sum(kubernetes_service_endpoint_http_success_cpm), 0)
    / sum(kubernetes_service_endpoint_http_call_cpm), 2) AS success_percent
FROM endpoint_minute
GROUP BY ALL
HAVING requests > 0
ORDER BY average_ms DESC, requests DESC, service, endpoint
LIMIT 10
"""
_LATEST: Final = "SELECT max(time_bucket) FROM service_minute"


def service_map(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the query for who called whom in the last six hours; its bounds are literals."""
    since = _bound(connection, MAP_HOURS)
    return f"""
WITH calls AS (
  SELECT
    source_service,
    dest_service,
    sum(kubernetes_service_relation_server_http_call_cpm) AS requests,
    sum(kubernetes_service_relation_server_http_success_cpm) AS succeeded
  FROM service_relation_minute
  WHERE time_bucket > {since}
  GROUP BY ALL
), slowest AS (
  SELECT
    source_service, dest_service, max(kubernetes_service_relation_server_percentile.p99) AS p99_ms
  FROM service_relation_hour
  WHERE time_bucket > {since}
  GROUP BY ALL
)
FROM calls JOIN slowest USING (source_service, dest_service)
"""  # noqa: S608 - a time of the store


def service_day(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the query for every metric of one service in the last day, minute by minute."""
    ((service,),) = connection.sql("SELECT max(service) FROM service_minute").fetchall()
    return (
        f"SELECT * FROM service_minute WHERE service = '{service}' "  # noqa: S608 - made names
        f"AND time_bucket > {_bound(connection, 24)}"
    )


def _bound(connection: duckdb.DuckDBPyConnection, hours: int) -> str:
    ((latest,),) = connection.sql(_LATEST).fetchall()
    return f"TIMESTAMP '{latest - timedelta(hours=hours)}'"


def benchmark(context: Context) -> Benchmark:
    """Ask a store of the size's hours."""
    store, tables = context.folder / "hours.duckdb", context.folder / "tables.duckdb"
    write_hours(context, store, context.size.store_hours)
    _write_tables(store, tables)
    views, finished = open_for_reading(store), duckdb.connect(str(tables), read_only=True)
    hours = context.size.store_hours
    return Benchmark(
        [
            _contest(
                f"service map of {min(MAP_HOURS, hours)} hours",
                service_map(views),
                (views, finished),
                "the percentiles of the hours: the buckets of a relation's minutes are sorted as "
                "one list, which is walked once for each of five percentiles.",
            ),
            _contest(
                f"p99 of all relations over {hours} hours",
                DAY_OF_RELATIONS,
                (views, finished),
                "the same as for the map, with the buckets of a whole day in one list.",
            ),
            _contest(
                f"one service's {hours} hours, all metrics",
                service_day(views),
                (views, finished),
                "planning all metrics of services, and sorting a list of buckets for each minute's "
                "percentiles.",
            ),
            _contest(
                "slowest endpoints",
                SLOWEST_ENDPOINTS,
                (views, finished),
                "the p99 of every endpoint and minute, of which the largest are asked for: buckets "
                "are sorted and walked for each. A range at once has a macro "
                "(`endpoint_percentiles_between`).",
            ),
        ]
    )


def _contest(
    name: str,
    query: str,
    connections: tuple[duckdb.DuckDBPyConnection, duckdb.DuckDBPyConnection],
    limited_by: str,
) -> Contest:
    views, finished = (
        Call(title, 1, partial(_ask, own, query), _answer)
        for title, own in zip(("views", "finished values in tables"), connections, strict=True)
    )
    return Contest(name, "queries", views, limited_by, [Rival(finished)])


def _ask(connection: duckdb.DuckDBPyConnection, query: str) -> list[tuple[object, ...]]:
    return connection.sql(query).fetchall()


def _answer(rows: list[tuple[object, ...]]) -> Answer:
    return text_answer(*sorted(map(str, rows)))


def _write_tables(store: Path, tables: Path) -> None:
    with duckdb.connect(str(tables)) as connection:
        connection.execute(f"ATTACH '{store}' AS store (READ_ONLY)").fetchall()
        for name in _TABLES:
            connection.execute(f"CREATE TABLE {name} AS FROM store.{name}").fetchall()
