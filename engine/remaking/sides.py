"""Tables beside those of metrics: counts by minute, hour and day, of which each minute is one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from framewalk.engine.views import RESOLUTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import polars as pl

    from framewalk.engine.store import Store

BUCKET: Final = "time_bucket"
_MINUTE_US: Final = 60_000_000
_HAS_EXPIRED: Final = "SELECT 1 FROM duckdb_tables() WHERE table_name = 'expired'"


@dataclass(frozen=True, slots=True)
class Side:
    """A table by its name, the names that a row is of, and its counts."""

    name: str
    keys: tuple[str, ...]
    counts: tuple[str, ...]

    def table(self, resolution: str) -> str:
        """Return the name of the table of a resolution."""
        return f"internal.{self.name}_{resolution}s"


CALLS: Final = Side(
    "endpoint_calls",
    ("source_service", "source_endpoint", "dest_service", "dest_endpoint", "derivation"),
    ("seen_by_both", "seen_by_client", "seen_by_server"),
)
CONNECTIONS: Final = Side(
    "endpoint_tcp_relation",
    ("source_service", "source_endpoint", "dest_service", "derivation"),
    ("connects", "bytes_written", "bytes_read"),
)
SIDES: Final = (CALLS, CONNECTIONS)


def make(store: Store) -> None:
    """Make the tables and their views, if they are not there."""
    for side in SIDES:
        columns = [f"{BUCKET} TIMESTAMP NOT NULL"]
        columns += [f"{name} VARCHAR NOT NULL" for name in side.keys]
        columns += [f"{name} BIGINT NOT NULL" for name in side.counts]
        for one in RESOLUTIONS:
            table = side.table(one.name)
            store.run(f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)})")
            store.run(f"CREATE VIEW IF NOT EXISTS {side.name}_{one.name} AS FROM {table}")


def replace(store: Store, side: Side, minutes: Sequence[int], rows: pl.DataFrame) -> None:
    """Replace the rows of minutes (since 1970); hours and days follow. Within a transaction.

    `rows` has the columns of the table.
    """
    starts = f"make_timestamp(unnest({list(minutes)}::BIGINT[]) * {_MINUTE_US})"
    finest = side.table(RESOLUTIONS[0].name)
    store.run(f"DELETE FROM {finest} WHERE {BUCKET} IN (SELECT {starts})")
    store.insert(finest, rows)
    for finer, one in pairwise(RESOLUTIONS):
        store.run("; ".join(_remade(side, finer.name, one.name, starts)))


def _remade(side: Side, finer: str, coarser: str, starts: str) -> Iterator[str]:
    source, target, keys = side.table(finer), side.table(coarser), ", ".join(side.keys)
    bucket = f"date_trunc('{coarser}', {BUCKET})"
    changed = f"SELECT DISTINCT date_trunc('{coarser}', start) FROM (SELECT {starts} AS start)"
    counts = ", ".join(f"sum({name})::BIGINT AS {name}" for name in side.counts)
    yield f"DELETE FROM {target} WHERE {BUCKET} IN ({changed})"
    yield (
        f"INSERT INTO {target} SELECT {bucket}, {keys}, {counts} FROM {source} "
        f"WHERE {bucket} IN ({changed}) GROUP BY ALL"
    )


def expire(store: Store) -> None:
    """Delete what is before the time from which metrics are kept."""
    if not store.run(_HAS_EXPIRED):
        return
    for side in SIDES:
        for one in RESOLUTIONS:
            kept = f"SELECT max({one.name}s) FROM internal.expired"
            store.run(f"DELETE FROM {side.table(one.name)} WHERE {BUCKET} < ({kept})")
