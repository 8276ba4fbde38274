"""How much room a store takes, and what is deleted to make some: whole days, the oldest first.

Deleted rows do not shrink the file. A checkpoint frees their blocks, which new rows take, as soon
as no reader sees them any more and enough of the rows that lie together are deleted.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.engine.store.connection import Connected, run, transaction
from framewalk.engine.views import (
    BUCKET,
    RESOLUTIONS,
    rolled_table,
    states_table,
    tables_of_states,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import duckdb

    from framewalk.engine.oal import Plan, Scope
    from framewalk.engine.views import Resolution

# Rows that one transaction deletes, unless one minute has more.
_ROWS_AT_ONCE: Final = 500_000
_MINUTES_PER_DAY: Final = 1_440
# Below that blocks are hardly filled, and say nothing about rows.
_ENOUGH_ROWS: Final = 100_000
_USUAL_ROW_BYTES: Final = 150


@dataclass(frozen=True, slots=True)
class Room:
    """What a store takes of its disk.

    `used_bytes` are the blocks in use and the write-ahead log; an estimated `deleted_bytes` of them
    have deleted rows, which a later checkpoint frees. `free_bytes` are blocks that new rows take
    before the file grows.
    """

    used_bytes: int
    deleted_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class StoredDay:
    """A day that has rows, from `begin` on (UTC)."""

    begin: dt.datetime
    rows: int


@dataclass(frozen=True, slots=True)
class Borders:
    """What begins before these times is deleted: minutes, hours and days (UTC, if without zone)."""

    minutes: dt.datetime
    hours: dt.datetime
    days: dt.datetime

    @property
    def earliest(self) -> dt.datetime:
        """The time before which nothing is left."""
        return min(map(_with_zone, (self.minutes, self.hours, self.days)))

    def of(self, resolution: Resolution) -> dt.datetime:
        """Return the border of a resolution, in UTC and without zone."""
        border: dt.datetime = getattr(self, f"{resolution.name}s")
        return _with_zone(border).replace(tzinfo=None)


def _with_zone(time: dt.datetime) -> dt.datetime:
    return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)


def room_of(connection: duckdb.DuckDBPyConnection, path: Path, tables: Sequence[str]) -> Room:
    """Return what a store with these tables of states takes."""
    blocks = "SELECT block_size, used_blocks, free_blocks FROM pragma_database_size()"
    block_bytes, used_blocks, free_blocks = run(connection, blocks)[0]
    used_bytes = block_bytes * used_blocks
    live = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    names = ", ".join(f"'{table.rpartition('.')[2]}'" for table in tables)
    # Where rows were deleted and are not freed, this is more than there are.
    kept = f"SELECT sum(estimated_size) FROM duckdb_tables() WHERE table_name IN ({names})"
    live_rows, kept_rows = run(connection, f"SELECT {live}, ({kept})")[0]
    deleted_rows = max(int(kept_rows) - live_rows, 0)
    deleted_bytes = used_bytes * deleted_rows // max(int(kept_rows), 1)
    log_bytes = 0
    with contextlib.suppress(OSError):
        log_bytes = path.with_name(f"{path.name}.wal").stat().st_size
    return Room(used_bytes + log_bytes, deleted_bytes, block_bytes * free_blocks)


def days_of(
    connection: duckdb.DuckDBPyConnection, scopes: Sequence[Scope], *, coarser: bool
) -> list[StoredDay]:
    """Return the days that have rows by minute, or any, the oldest first."""
    day = f"time_bucket(INTERVAL 1 DAY, {BUCKET})"
    minutes, *others = RESOLUTIONS
    chosen = [minutes, *others] if coarser else [minutes]
    tables = [states_table(scope) for scope in scopes]
    tables += [rolled_table(scope, one) for scope in scopes for one in chosen]
    each = " UNION ALL ".join(f"SELECT {day} AS day FROM {table}" for table in tables)
    rows = run(connection, f"SELECT day, count(*) FROM ({each}) GROUP BY 1 ORDER BY 1")
    return [StoredDay(begin.replace(tzinfo=dt.UTC), count) for begin, count in rows]


def expire(
    connection: duckdb.DuckDBPyConnection, scopes: Sequence[Scope], borders: Borders
) -> Iterator[int]:
    """Delete what begins before its border; yields how many rows each transaction deleted."""
    # What is not rolled up belongs to all resolutions.
    border = borders.earliest.replace(tzinfo=None)
    yield from delete_before(connection, list(map(states_table, scopes)), border)
    for one in RESOLUTIONS:
        tables = [rolled_table(scope, one) for scope in scopes]
        yield from delete_before(connection, tables, borders.of(one))


def note_expired(connection: duckdb.DuckDBPyConnection, borders: Borders) -> None:
    """Note, within a transaction, before when each resolution has nothing any more."""
    names = [one.name + "s" for one in RESOLUTIONS]
    columns = ", ".join(f"{name} TIMESTAMP NOT NULL" for name in names)
    run(connection, f"CREATE TABLE IF NOT EXISTS internal.expired ({columns})")
    latest = ", ".join(f"max({name})" for name in names)
    added = [borders.of(one) for one in RESOLUTIONS]
    run(connection, f"INSERT INTO internal.expired VALUES ({', '.join('?' * len(names))})", added)
    kept = run(connection, f"SELECT {latest} FROM internal.expired")[0]
    run(connection, "DELETE FROM internal.expired")
    run(connection, f"INSERT INTO internal.expired VALUES ({', '.join('?' * len(names))})", kept)


def delete_before(
    connection: duckdb.DuckDBPyConnection,
    tables: Sequence[str],
    before: dt.datetime,
    rows_at_once: int = _ROWS_AT_ONCE,
) -> Iterator[int]:
    """Delete the rows of minutes before a time (UTC, without a zone); yields how many that were.

    Each transaction deletes whole minutes, the oldest first, and a bounded number of rows.
    """
    for last in _ends_of_parts(connection, tables, before, rows_at_once):
        deleted = 0
        with transaction(connection):
            for table in tables:
                sql = f"DELETE FROM {table} WHERE {BUCKET} <= ?"
                deleted += int(run(connection, sql, [last])[0][0])
        yield deleted


def _ends_of_parts(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[str], before: dt.datetime, rows: int
) -> list[dt.datetime]:
    """Return the last minute of each part that has so many rows."""
    each = " UNION ALL ".join(
        f"SELECT {BUCKET} FROM {table} WHERE {BUCKET} < $before" for table in tables
    )
    per_minute = f"SELECT {BUCKET}, count(*) AS rows FROM ({each}) GROUP BY 1"
    parts = f"SELECT {BUCKET}, sum(rows) OVER (ORDER BY {BUCKET}) // $rows AS part FROM minutes"
    sql = (
        f"WITH minutes AS ({per_minute}) "
        f"SELECT max({BUCKET}) FROM ({parts}) GROUP BY part ORDER BY 1"
    )
    return [last for (last,) in run(connection, sql, {"before": before, "rows": rows})]


def growth_of(connection: duckdb.DuckDBPyConnection, scopes: Sequence[Scope]) -> dict[str, int]:
    """Return the bytes that each scope's minutes take a day, by its view, as of the newest hour.

    Of minutes that are rolled up; where there are few, with bytes a row that are usual.
    """
    block_bytes = int(run(connection, "SELECT block_size FROM pragma_database_size()")[0][0])
    return {
        scope.view: int(
            _rows_per_day(connection, scope) * _bytes_per_row(connection, scope, block_bytes)
        )
        for scope in scopes
    }


def _rows_per_day(connection: duckdb.DuckDBPyConnection, scope: Scope) -> float:
    table = rolled_table(scope, RESOLUTIONS[0])
    newest = f"(SELECT max({BUCKET}) FROM {table})"
    sql = (
        f"SELECT count(*), count(DISTINCT {BUCKET}) FROM {table} "
        f"WHERE {BUCKET} > {newest} - INTERVAL 1 HOUR"
    )
    rows, minutes = run(connection, sql)[0]
    return int(rows) * _MINUTES_PER_DAY / max(int(minutes), 1)


def _bytes_per_row(connection: duckdb.DuckDBPyConnection, scope: Scope, block_bytes: int) -> float:
    table = rolled_table(scope, RESOLUTIONS[0])
    rows = int(run(connection, f"SELECT count(*) FROM {table}")[0][0])
    if rows < _ENOUGH_ROWS:
        return _USUAL_ROW_BYTES
    used = "SELECT count(DISTINCT block_id) FROM pragma_storage_info(?) WHERE persistent"
    blocks = int(run(connection, used, [table])[0][0])
    return block_bytes * blocks / rows


class MeasuredRoom(Connected):
    """What a store has of time and of its disk."""

    plan: Plan

    def first_kept_minute(self) -> int | None:
        """Return the minute (since 1970) before which minutes have expired; None if none have."""
        sql = "SELECT epoch_us(max(minutes)) // 60000000 FROM internal.expired"
        return self.run(sql)[0][0] if self._has("expired") else None

    def waiting_rows(self) -> int:
        """Return how many rows commits have appended that are not rolled up yet."""
        tables = [states_table(scope.scope) for scope in self.plan.scopes]
        counted = " + ".join(f"(SELECT count(*) FROM {table})" for table in tables) or "0"
        return int(self.run(f"SELECT {counted}")[0][0])

    def newest_minute_s(self, until_s: float) -> float | None:
        """Return the newest minute with states that is not after a time, both since 1970 in s.

        None where there is none.
        """
        buckets = " UNION ALL ".join(
            f"SELECT max({BUCKET}) AS newest FROM {table} "
            f"WHERE {BUCKET} <= make_timestamp($until_us)"
            for scope in self.plan.scopes
            for table in (states_table(scope.scope), rolled_table(scope.scope, RESOLUTIONS[0]))
        )
        sql = f"SELECT epoch(max(newest)) FROM ({buckets})"
        newest_s: float | None = self.run(sql, {"until_us": int(until_s * 10**6)})[0][0]
        return newest_s

    def room(self) -> Room:
        """Return what the store takes of its disk."""
        tables = [one for scope in self.plan.scopes for one in tables_of_states(scope.scope)]
        with self._explaining():
            return room_of(self._connection, self.path, tables)

    def days(self, *, coarser: bool = False) -> list[StoredDay]:
        """Return the days (UTC) that have states by minute, the oldest first.

        With `coarser` those, too, that have hours or days only.
        """
        with self._explaining():
            scopes = [scope.scope for scope in self.plan.scopes]
            return days_of(self._connection, scopes, coarser=coarser)

    def growth(self) -> dict[str, int]:
        """Return the bytes that minutes take a day, by the view of their scope."""
        with self._explaining():
            return growth_of(self._connection, [scope.scope for scope in self.plan.scopes])

    def _has(self, table: str) -> bool:
        return bool(self.run("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [table]))
