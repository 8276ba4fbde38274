"""Of which minutes the archive has all logs, and which of them got some since they were last used.

Both are written in the transactions of the logs themselves. What is made of the logs of a minute is
made again as a whole when some came late, and not at all where some are not archived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from framewalk.engine.schemas import LONGEST_SERVED_NS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from framewalk.engine.store import Store

NS_PER_MINUTE: Final = 60 * 10**9
# Of how many minutes more, on both sides, a request may take part in the calls.
NEAR_MINUTES: Final = 2
_CHANGED: Final = "internal.changed_minutes"
_UNARCHIVED: Final = "internal.unarchived_minutes"
# Of which requests are archived, and not each read, write and connection.
_REQUESTS_ONLY: Final = "internal.requests_only_minutes"
# Of which some requests stand for others.
_SAMPLED: Final = "internal.sampled_minutes"
_HAS: Final = "SELECT 1 FROM duckdb_tables() WHERE table_name = 'unarchived_minutes'"
_INT64_MAX: Final = 2**63 - 1


# A request is counted in one of these, and in a row of the archive.
_COUNTS: Final = tuple(
    f"kubernetes_service_relation_{side}_http_call_cpm" for side in ("client", "server")
)
_COUNTED: Final = f"""
    WITH counted AS (
        SELECT epoch(time_bucket)::BIGINT // 60 AS minute,
               sum({" + ".join(f"coalesce({name}, 0)" for name in _COUNTS)}) AS requests
        FROM service_relation_minute GROUP BY ALL
    ), archived AS (
        SELECT epoch_ns("time") // {NS_PER_MINUTE} AS minute, count(*) AS requests
        FROM http_logs GROUP BY ALL
    )
    SELECT minute FROM counted LEFT JOIN archived USING (minute)
    WHERE counted.requests = coalesce(archived.requests, 0)
"""
_HAS_COUNTS: Final = (
    "SELECT 1 FROM duckdb_columns() WHERE table_name = 'service_relation_minute' "
    "AND column_name IN (SELECT unnest(?::VARCHAR[])) HAVING count(*) = ?"
)


def begin(store: Store) -> bool:
    """Make the tables; logs that a store has before it has an archive are not in that.

    Returns whether there were none: an archive that is there is of an earlier version then.
    """
    store.run(f"CREATE TABLE IF NOT EXISTS {_SAMPLED} (minute BIGINT NOT NULL)")
    if store.run(_HAS):
        kept_from = store.first_kept_minute()
        if kept_from is not None:
            forget_before(store, kept_from)
        return False
    for table in (_CHANGED, _UNARCHIVED, _REQUESTS_ONLY):
        store.run(f"CREATE TABLE {table} (minute BIGINT NOT NULL)")
    stored = " UNION ".join(
        f"SELECT time_bucket FROM internal.service_relation_{table}"
        for table in ("states", "minutes")
    )
    store.run(f"INSERT INTO {_UNARCHIVED} SELECT epoch(time_bucket)::BIGINT // 60 FROM ({stored})")
    return True


def take_over(store: Store) -> None:
    """Find the minutes of which an earlier version has archived all requests: they are `changed`.

    These are those of which the views have as many as were counted. A store whose definitions do
    not count them has none.
    """
    if not store.run(_HAS_COUNTS, [list(_COUNTS), len(_COUNTS)]):
        return
    found = [minute for (minute,) in store.run(_COUNTED)]
    store.run(f"DELETE FROM {_UNARCHIVED} WHERE minute IN (SELECT unnest(?::BIGINT[]))", [found])
    note_requests_only(store, found)
    note_changed(store, found)


def note_unarchived(store: Store, minutes: Collection[int]) -> None:
    """Note minutes that get logs which no archive has; nothing in a store without an archive."""
    if minutes and store.run(_HAS):
        _add(store, _UNARCHIVED, minutes)


def note_requests_only(store: Store, minutes: Collection[int]) -> None:
    """Note minutes that get logs of which requests alone are archived."""
    if minutes:
        _add(store, _REQUESTS_ONLY, minutes)


def requests_only(store: Store, first: int, last: int) -> set[int]:
    """Return the minutes from one to another of which not each kind of logs is archived."""
    sql = f"SELECT DISTINCT minute FROM {_REQUESTS_ONLY} WHERE minute BETWEEN ? AND ?"
    return {minute for (minute,) in store.run(sql, [first, last])}


def note_sampled(store: Store, minutes: Collection[int]) -> None:
    """Note minutes of whose requests some are left that stand for others."""
    if minutes:
        _add(store, _SAMPLED, minutes)


def sampled(store: Store, first: int, last: int) -> set[int]:
    """Return the minutes from one to another of whose requests some stand for others."""
    sql = f"SELECT DISTINCT minute FROM {_SAMPLED} WHERE minute BETWEEN ? AND ?"
    return {minute for (minute,) in store.run(sql, [first, last])}


def note_changed(store: Store, minutes: Collection[int]) -> None:
    """Note minutes of which something is to be made again."""
    if minutes:
        _add(store, _CHANGED, minutes)


def no_longer_changed(store: Store, minutes: Collection[int]) -> None:
    """Note that all was made again; to be called in the transaction that writes it."""
    sql = f"DELETE FROM {_CHANGED} WHERE minute IN (SELECT unnest(?::BIGINT[]))"
    store.run(sql, [list(minutes)])


def changed(store: Store, before: int | None) -> list[int]:
    """Return the minutes of which something is to be made again, those before one, in order."""
    limit = "" if before is None else f"WHERE minute < {int(before)}"
    rows = store.run(f"SELECT DISTINCT minute FROM {_CHANGED} {limit} ORDER BY 1")
    return [minute for (minute,) in rows]


def unarchived(store: Store, first: int, last: int) -> set[int]:
    """Return the minutes from one to another of which logs are not in the archive."""
    sql = f"SELECT DISTINCT minute FROM {_UNARCHIVED} WHERE minute BETWEEN ? AND ?"
    return {minute for (minute,) in store.run(sql, [first, last])}


def forget_before(store: Store, minute: int) -> None:
    """Forget minutes of which the archive has nothing any more."""
    for table in (_UNARCHIVED, _REQUESTS_ONLY, _SAMPLED):
        store.run(f"DELETE FROM {table} WHERE minute < ?", [minute])


def minutes_near(tables: Iterable[pa.Table]) -> set[int]:
    """Return the minutes in whose calls requests may take part: rows as they are archived."""
    found: set[int] = set()
    for table in tables:
        spans = served(table).select(
            first=pl.col("start_ns") // NS_PER_MINUTE - NEAR_MINUTES,
            last=pl.col("end_ns") // NS_PER_MINUTE + NEAR_MINUTES,
        )
        for first, last in spans.unique().iter_rows():
            found.update(range(first, last + 1))
    return found


def served_span(table: pa.Table) -> tuple[int, int]:
    """Return when the first and the last of some requests began to be served."""
    starts = served(table)["start_ns"]
    return int(starts.min()), int(starts.max())  # type: ignore[arg-type]


def served(table: pa.Table) -> pl.DataFrame:
    """Return when requests were being served, as far as calls can be of it.

    `start_ns` and `end_ns` (since 1970, Int64), a row a request, at most LONGEST_SERVED_NS apart.
    """
    names = ("time", "duration_ns", "serving_before_ns", "serving_after_ns")
    columns = {name: table[name].cast(pa.int64()) for name in names}
    rows = pl.DataFrame(pa.table(columns))
    # A sender chose these numbers.
    time, duration, before, after = (pl.col(name).fill_null(0).cast(pl.Int128) for name in names)
    start = (time + before).clip(0, _INT64_MAX - LONGEST_SERVED_NS)
    end = start + (duration - before - after).clip(0, LONGEST_SERVED_NS)
    return rows.select(start_ns=start.cast(pl.Int64), end_ns=end.cast(pl.Int64))


def _add(store: Store, table: str, minutes: Collection[int]) -> None:
    store.run(
        f"INSERT INTO {table} SELECT minute FROM (SELECT unnest(?::BIGINT[]) AS minute) "
        f"WHERE minute NOT IN (SELECT minute FROM {table})",
        [sorted(minutes)],
    )
