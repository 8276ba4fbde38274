"""The outbox of a store: what its commits wrote, until it is in the table that engines share.

It is written in the transaction of the commit itself. Each commit has a number, the next one, and
a token: two stores that are copies of each other give the same numbers, and other tokens.
"""

from __future__ import annotations

import io
import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.archive import KINDS
from framewalk.engine.errors import StoreError
from framewalk.engine.sharing.layout import COMMIT, COMMITS, COMMITS_SCHEMA, ENGINE
from framewalk.engine.sharing.logs import LOG_KINDS, LOGS
from framewalk.engine.store import as_counters

if TYPE_CHECKING:
    from collections.abc import Callable

    import duckdb

    from framewalk.engine.counters import Counters
    from framewalk.engine.sharing.layout import Layout
    from framewalk.engine.store import Store

_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS internal.publishing (engine VARCHAR NOT NULL, "
    "table_id VARCHAR NOT NULL, published BIGINT NOT NULL, token BIGINT NOT NULL);"
    'CREATE TABLE IF NOT EXISTS internal.outbox ("commit" BIGINT NOT NULL, '
    "token BIGINT NOT NULL, view VARCHAR NOT NULL, rows BIGINT NOT NULL, "
    "size_bytes BIGINT NOT NULL, content BLOB NOT NULL)"
)
_HAS_TABLES: Final = "SELECT 1 FROM duckdb_tables() WHERE table_name = 'publishing'"
_TOKEN_BITS: Final = 62
# Rows of one piece, so that none is large.
_PIECE_ROWS: Final = 50_000


@dataclass(frozen=True, slots=True)
class Place:
    """How far an engine's commits are in the table: `published` is the last one, with its `token`.

    `table_id` is empty where nothing was published yet.
    """

    engine: str
    table_id: str = ""
    published: int = 0
    token: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Commits that follow each other, as rows of the table; `last` has this `token`."""

    last: int
    token: int
    rows: pl.DataFrame


class Outbox:
    """Takes what commits of a store write; an Outbound.

    `label` names the engine to people, and `now_us` tells the time (since 1970). With `takes_logs`
    it takes what goes into the archive, too.
    """

    def __init__(
        self, store: Store, label: str, now_us: Callable[[], int], *, takes_logs: bool = False
    ) -> None:
        self.takes_logs = takes_logs
        self._store = store
        self._label = label
        self._now_us = now_us
        with store.transaction():
            store.run(_TABLES)
            if not store.run("SELECT 1 FROM internal.publishing"):
                row = [uuid.uuid4().hex]
                store.run("INSERT INTO internal.publishing VALUES (?, '', 0, 0)", row)
            if takes_logs:
                _begin_logs(store)
        self.place = _place(store.connection)
        self._last = self._pending = self._pending_bytes = 0
        self._token, self._written_bytes = 0, 0
        # Whether what is counted here is what the store has.
        self._is_counted = False

    @property
    def pending(self) -> int:
        """How many commits are in it."""
        self._count()
        return self._pending

    @property
    def pending_bytes(self) -> int:
        """How many bytes they take."""
        self._count()
        return self._pending_bytes

    def add(self, view: str, rows: pl.DataFrame) -> None:
        """Take rows of a scope (by its view), or of another kind."""
        self._count()
        for piece in rows.iter_slices(_PIECE_ROWS):
            content = io.BytesIO()
            piece.write_ipc(content, compression="zstd")
            self._write(view, piece.height, content.getvalue())

    def add_file(self, kind: str, rows: int, content: bytes) -> None:
        """Take a file of archived logs of a kind: Parquet."""
        self._count()
        self._write(kind, rows, content)

    def close(self, counters: Counters) -> None:
        """Take what was counted, as the last of a commit."""
        names = ("kind", "name", "count")
        counted = [dict(zip(names, one, strict=True)) for one in as_counters(counters)]
        row = (self._now_us(), self._label, counted)
        self.add(COMMITS, pl.DataFrame([row], schema=COMMITS_SCHEMA, orient="row"))
        self._last += 1
        self._pending += 1
        self._pending_bytes += self._written_bytes
        self._token, self._written_bytes = _new_token(), 0

    def undo(self) -> None:
        """Forget what a transaction gave."""
        self._is_counted = False

    def add_empty(self, counters: Counters) -> None:
        """Make a commit that has nothing: a sign of life."""
        with self._store.transaction():
            self.close(counters)

    def settle(self, place: Place) -> None:
        """Take out what is in the table."""
        if place == self.place:
            return
        row = [place.engine, place.table_id, place.published, place.token]
        with self._store.transaction():
            self._store.run('DELETE FROM internal.outbox WHERE "commit" <= ?', [place.published])
            self._store.run("DELETE FROM internal.publishing")
            self._store.run("INSERT INTO internal.publishing VALUES (?, ?, ?, ?)", row)
        self.place, self._is_counted = place, False

    def _write(self, view: str, rows: int, content: bytes) -> None:
        own = [self._last + 1, self._token, view, rows, len(content), content]
        self._store.run("INSERT INTO internal.outbox VALUES (?, ?, ?, ?, ?, ?)", own)
        self._written_bytes += len(content)

    def _count(self) -> None:
        """Count what the store has, after a transaction that may have been undone."""
        if self._is_counted:
            return
        ((last, self._pending, self._pending_bytes),) = self._store.run(
            'SELECT coalesce(max("commit"), 0), count(DISTINCT "commit"), '
            "coalesce(sum(size_bytes), 0)::BIGINT FROM internal.outbox"
        )
        self._last = max(last, self.place.published)
        self._token, self._written_bytes = _new_token(), 0
        self._is_counted = True


def _begin_logs(store: Store) -> None:
    """Note that commits have their logs from now on; raises StoreError where some wait without."""
    has_logs = store.run(_HAS_TABLES.replace("'publishing'", "'publishing_logs'"))
    if not has_logs and store.run("SELECT 1 FROM internal.outbox LIMIT 1"):
        problem = "commits wait to be published that were made without their logs"
        raise StoreError(store.path, problem, "publish them without logs, or give it a new store")
    store.run("CREATE TABLE IF NOT EXISTS internal.publishing_logs (since BIGINT)")


def _new_token() -> int:
    return secrets.randbits(_TOKEN_BITS)


def has_published(store: Store) -> bool:
    """Tell whether a store has an outbox: what is replaced in it is not replaced elsewhere."""
    return bool(store.run(_HAS_TABLES))


def _place(connection: duckdb.DuckDBPyConnection) -> Place:
    sql = "SELECT engine, table_id, published, token FROM internal.publishing"
    (row,) = connection.execute(sql).fetchall()
    return Place(*row)


class OutboxReader:
    """Reads an outbox through a connection of its own, while commits add to it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def place(self) -> Place:
        """Return how far the commits that the store knows to be published are."""
        return _place(self._connection)

    def token(self, commit: int) -> int | None:
        """Return the token of a commit; None where it is not in the outbox."""
        sql = 'SELECT any_value(token) FROM internal.outbox WHERE "commit" = ?'
        ((token,),) = self._connection.execute(sql, [commit]).fetchall()
        return None if token is None else int(token)

    def batch(self, place: Place, layout: Layout, most_rows: int, most_bytes: int) -> Batch | None:
        """Return the commits after a place, as many as are within the limits, or one that is not.

        None where there is none.
        """
        found = self._connection.execute(
            'SELECT "commit", any_value(token), sum(rows), sum(size_bytes) '
            'FROM internal.outbox WHERE "commit" > ? GROUP BY 1 ORDER BY 1',
            [place.published],
        ).fetchall()
        if not found:
            return None
        last, token, rows, size_bytes = found[0]
        for commit, next_token, more_rows, more_bytes in found[1:]:
            rows, size_bytes = rows + more_rows, size_bytes + more_bytes
            if rows > most_rows or size_bytes > most_bytes:
                break
            last, token = commit, next_token
        return Batch(last, token, self._rows(place, last, layout))

    def logs(self, place: Place, last: int) -> pl.DataFrame:
        """Return what commits after a place, up to one, have of logs: rows of LOGS."""
        return self._rows(place, last, LOGS)

    def _rows(self, place: Place, last: int, layout: Layout) -> pl.DataFrame:
        sql = (
            'SELECT "commit", view, content FROM internal.outbox '
            'WHERE "commit" > ? AND "commit" <= ? ORDER BY rowid'
        )
        parts = [pl.DataFrame(schema=layout.schema).clear()]
        pieces = self._connection.execute(sql, [place.published, last]).fetchall()
        for commit, view, content in pieces:
            if (view in LOG_KINDS) != (layout is LOGS):
                continue
            is_file = view in KINDS
            rows = (pl.read_parquet if is_file else pl.read_ipc)(io.BytesIO(content))
            of = (pl.lit(place.engine).alias(ENGINE), pl.lit(commit, pl.Int64).alias(COMMIT))
            parts.append(layout.shared(view, rows).with_columns(of))
        return layout.whole(pl.concat(parts, how="diagonal"))
