"""What stands beside the metrics: who had which name, and what had none.

Pods and aliases of Services as they are and were, the sightings that they were made of (so that a
recount needs no dump), and the traffic of addresses that stand for nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.caps import OTHER_PEERS
from framewalk.engine.kubernetes import (
    ALIASES_SCHEMA,
    PODS_SCHEMA,
    SIGHTING_KEYS,
    SIGHTINGS_SCHEMA,
)
from framewalk.engine.store.connection import Connected, run
from framewalk.engine.views import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import duckdb

    from framewalk.engine.kubernetes import Described

_UNKNOWN_KEYS: Final = "cluster, address, port, side, partner, node, reason"
_UNKNOWN_SUMS: Final = (
    "min(first_seen) AS first_seen, max(last_seen) AS last_seen, sum(logs)::BIGINT AS logs, "
    "sum(bytes)::BIGINT AS bytes, sum(http_calls)::BIGINT AS http_calls"
)
_TOLD_OF_AN_HOUR: Final = 2_000
_TIMES: Final = "make_timestamp_ns({0}_ns)::TIMESTAMP AS {0}_time"


def tables() -> Iterator[str]:
    """Yield the statements that make the tables."""
    yield (
        f"CREATE TABLE internal.unknown_peers ({BUCKET} TIMESTAMP NOT NULL, "
        "cluster VARCHAR NOT NULL, address VARCHAR NOT NULL, port INTEGER NOT NULL, "
        "side VARCHAR NOT NULL, partner VARCHAR NOT NULL, node VARCHAR NOT NULL, "
        "reason VARCHAR NOT NULL, first_seen TIMESTAMP NOT NULL, last_seen TIMESTAMP NOT NULL, "
        "logs BIGINT NOT NULL, bytes BIGINT NOT NULL, http_calls BIGINT NOT NULL)"
    )
    yield (
        "CREATE TABLE internal.pods (cluster VARCHAR NOT NULL, service VARCHAR, "
        "instance VARCHAR NOT NULL, namespace VARCHAR NOT NULL, node VARCHAR, "
        "addresses VARCHAR[] NOT NULL, owner_kind VARCHAR, owner_name VARCHAR, version VARCHAR, "
        "labels MAP(VARCHAR, VARCHAR) NOT NULL, is_by_owner BOOLEAN NOT NULL, "
        "from_ns BIGINT, to_ns BIGINT)"
    )
    yield (
        "CREATE TABLE internal.service_aliases (alias VARCHAR NOT NULL, service VARCHAR NOT NULL, "
        "namespace VARCHAR NOT NULL, cluster VARCHAR NOT NULL, from_ns BIGINT, to_ns BIGINT)"
    )
    columns = ", ".join(
        f"{name} {'VARCHAR' if dtype == pl.String else 'BIGINT'}"
        for name, dtype in SIGHTINGS_SCHEMA.items()
    )
    yield f"CREATE TABLE internal.sightings ({columns})"


def views() -> Iterator[str]:
    """Yield the statements that make the views."""
    life = ", ".join(_TIMES.format(end) for end in ("from", "to"))
    yield _unknown_view()
    yield (
        "CREATE OR REPLACE VIEW pods AS SELECT service, instance, namespace, cluster, node, "
        f"addresses, owner_kind, owner_name, version, labels, is_by_owner, {life} "
        "FROM internal.pods"
    )
    yield (
        "CREATE OR REPLACE VIEW service_aliases AS "
        f"SELECT alias, service, namespace, cluster, {life} FROM internal.service_aliases"
    )


def _unknown_view() -> str:
    """Tell those with the most bytes of each hour apart, and the rest in one row."""
    is_told = f"place <= {_TOLD_OF_AN_HOUR}"
    told = ", ".join(
        f"CASE WHEN {is_told} THEN {name} ELSE {OTHER_PEERS[name]!r} END AS {name}"
        for name in _UNKNOWN_KEYS.split(", ")
    )
    return (
        "CREATE OR REPLACE VIEW unknown_peers AS WITH added_up AS ("
        f"SELECT {BUCKET}, {_UNKNOWN_KEYS}, {_UNKNOWN_SUMS} FROM internal.unknown_peers "
        f"GROUP BY ALL), placed AS (SELECT *, row_number() OVER (PARTITION BY {BUCKET} "
        f"ORDER BY bytes DESC, logs DESC, {_UNKNOWN_KEYS}) AS place FROM added_up) "
        f"SELECT {BUCKET}, {told}, {_UNKNOWN_SUMS} FROM placed GROUP BY ALL"
    )


def unknown_rows(unknown: pl.DataFrame) -> pl.DataFrame:
    """Return UNKNOWN_PEERS_SCHEMA as rows of its table."""
    us = pl.Datetime("us")
    return unknown.select(
        (pl.col("hour") * 3_600_000_000).cast(us).alias(BUCKET),
        "cluster",
        "address",
        "port",
        "side",
        "partner",
        "node",
        "reason",
        (pl.col("first_ns") // 1000).cast(us).alias("first_seen"),
        (pl.col("last_ns") // 1000).cast(us).alias("last_seen"),
        "logs",
        "bytes",
        "http_calls",
    )


def compact_unknown(connection: duckdb.DuckDBPyConnection) -> None:
    """Make one row of those with the same key and hour; in a transaction of the caller's."""
    several = (
        f"SELECT DISTINCT {BUCKET} FROM internal.unknown_peers "
        f"GROUP BY {BUCKET}, {_UNKNOWN_KEYS} HAVING count(*) > 1"
    )
    run(
        connection,
        f"CREATE OR REPLACE TEMP TABLE added_up AS SELECT {BUCKET}, {_UNKNOWN_KEYS}, "
        f"{_UNKNOWN_SUMS} FROM internal.unknown_peers WHERE {BUCKET} IN ({several}) GROUP BY ALL",
    )
    run(
        connection,
        f"DELETE FROM internal.unknown_peers WHERE {BUCKET} IN (SELECT {BUCKET} FROM added_up)",
    )
    run(connection, "INSERT INTO internal.unknown_peers BY NAME FROM added_up")
    run(connection, "DROP TABLE added_up")


def expire(connection: duckdb.DuckDBPyConnection, before_ns: int) -> None:
    """Delete what was over before a time; in a transaction of the caller's."""
    hour = f"make_timestamp({before_ns // 1000}) - INTERVAL 1 HOUR"
    run(connection, f"DELETE FROM internal.unknown_peers WHERE {BUCKET} <= {hour}")
    for table in ("pods", "service_aliases"):
        run(connection, f"DELETE FROM internal.{table} WHERE to_ns < {before_ns}")
    run(connection, f"DELETE FROM internal.sightings WHERE gone_ns < {before_ns}")


def keep(connection: duckdb.DuckDBPyConnection, before: Described | None, after: Described) -> None:
    """Write what has changed since `before`, which may be None; in a transaction of the caller's.

    What is in `before` and not in `after` is forgotten there, and stays here; but of what is in
    both only the newer says what it was and when.
    """
    pods = ("cluster", "namespace", "instance")
    _write(connection, "pods", pods, _pair(before, after, "pods", PODS_SCHEMA))
    aliases = ("cluster", "alias")
    _write(
        connection,
        "service_aliases",
        aliases,
        _pair(before, after, "service_aliases", ALIASES_SCHEMA),
    )
    old, new = _pair(before, after, "sightings", SIGHTINGS_SCHEMA)
    added = new.join(old, on=new.columns, how="anti", nulls_equal=True)
    _delete(connection, "sightings", SIGHTING_KEYS, added.select(SIGHTING_KEYS))
    _insert(connection, "sightings", added, added.columns)


def _pair(
    before: Described | None, after: Described, name: str, schema: pl.Schema
) -> tuple[pl.DataFrame, pl.DataFrame]:
    new: pl.DataFrame = getattr(after, name)
    return pl.DataFrame(schema=schema) if before is None else getattr(before, name), new


def _write(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    keys: Sequence[str],
    frames: tuple[pl.DataFrame, pl.DataFrame],
) -> None:
    """Write the rows of what has changed: those of its time give way."""
    old, new = (frame.with_columns(_text()) for frame in frames)
    changed = new.join(old, on="text", how="anti").select(keys).unique()
    added = new.join(changed, on=keys, how="semi").drop("text")
    times = added.group_by(keys).agg(
        pl.when(pl.col("from_ns").is_null().any())
        .then(None)
        .otherwise(pl.col("from_ns").min())
        .first()
        .alias("from_ns")
    )
    given_up = [*keys, "from_ns"]
    _delete(connection, table, given_up, times.select(given_up), "from_ns")
    columns = ["map_from_entries(labels)" if name == "labels" else name for name in added.columns]
    _insert(connection, table, added, columns)


def _text() -> pl.Expr:
    return pl.struct(pl.all()).struct.json_encode().alias("text")


def _delete(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    keys: Sequence[str],
    rows: pl.DataFrame,
    since: str = "",
) -> None:
    """Delete the rows with these keys; with `since` those that begin at it or later."""
    if rows.is_empty():
        return
    same = " AND ".join(
        f"kept.{name} IS NOT DISTINCT FROM new.{name}" for name in keys if name != since
    )
    if since:
        same += f" AND (new.{since} IS NULL OR kept.{since} >= new.{since})"
    connection.register("named_keys", rows.to_arrow())
    try:
        run(
            connection, f"DELETE FROM internal.{table} AS kept USING named_keys AS new WHERE {same}"
        )
    finally:
        connection.unregister("named_keys")


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame, columns: Sequence[str]
) -> None:
    if rows.is_empty():
        return
    connection.register("named_rows", rows.to_arrow())
    try:
        names = ", ".join(rows.columns)
        values = ", ".join(columns)
        run(connection, f"INSERT INTO internal.{table} ({names}) SELECT {values} FROM named_rows")
    finally:
        connection.unregister("named_rows")


class KeptSightings(Connected):
    """What a store remembers of Pods and Services."""

    def keep_entities(self, before: Described | None, after: Described) -> None:
        """Keep what is known of Pods and Services; `before` is what was given last.

        What is not in `after` any more stays until it expires.
        """
        with self.transaction():
            keep(self._connection, before, after)

    def kept_sightings(self, gone_after_ns: int = -(2**63)) -> pl.DataFrame:
        """Return what is kept of Pods and Services: SIGHTINGS_SCHEMA.

        Without those that were gone by then, in ns since 1970.
        """
        sql = f"FROM internal.sightings WHERE coalesce(gone_ns > {gone_after_ns}, true)"
        with self._explaining():
            rows: pl.DataFrame = self._connection.sql(sql).pl()
        return rows.cast(SIGHTINGS_SCHEMA)
