"""Outbox -> table: each commit of an engine is in the table once, whatever is killed when.

The table says which commit of an engine it has, in the same transaction as the rows. So what was
published and not noted here is found there, and is not published again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import TableError
from framewalk.engine.sharing.layout import digest_of

if TYPE_CHECKING:
    from framewalk.engine.oal import Plan
    from framewalk.engine.sharing.logs import LogsTable
    from framewalk.engine.sharing.outbox import OutboxReader, Place
    from framewalk.engine.sharing.table import SharedTable

# What goes into one commit of the table, where as much waits: a second's work, and its memory.
_MOST_ROWS: Final = 100_000
_MOST_BYTES: Final = 16 * 2**20

_OTHER_DEFINITIONS: Final = (
    "it has states of other definitions, Apdex thresholds or patterns of endpoints than this engine"
)
_SAME_DEFINITIONS: Final = "give all engines the same ones, or name another place"
_COPIED: Final = (
    "another engine publishes as this one: its store is a copy of this store, or this one of it"
)
_ONE_OF_THEM: Final = "stop one of them, and give it a new store"
_GONE: Final = "it does not have what this engine has published"
_WITH_LOGS: Final = "engines publish their archived logs there, and this one does not"
_PUBLISH_LOGS: Final = (
    "have it archive logs and publish them (FRAMEWALK_ARCHIVE_MODE=http, "
    "FRAMEWALK_PUBLISH_LOGS=true), or name another place"
)
_WITHOUT_LOGS: Final = "engines publish no logs there, and this one does"
_PUBLISH_NO_LOGS: Final = "turn that off (FRAMEWALK_PUBLISH_LOGS=false), or name another place"
_RESTORE: Final = "restore it, or give the engine a new store"


def open_for_publishing(
    table: SharedTable, plan: Plan, place: Place, logs: LogsTable | None = None
) -> None:
    """Take the tables as they are by now; they are made where nothing was ever published.

    `logs` is the table of logs, of an engine that publishes its archive.

    Raises TableError where they are not for what the plan computes, or are others than before, and
    where all other engines publish logs and this one does not, or none and this one.
    """
    if not table.open():
        if place.table_id:
            raise TableError(table.uri, "the table is gone", _RESTORE)
        logs_id = ""
        if logs is not None:
            if not logs.open():
                logs.create_logs()
            logs_id = logs.id
        table.create(plan, logs_id)
    if table.digest != digest_of(plan):
        raise TableError(table.uri, _OTHER_DEFINITIONS, _SAME_DEFINITIONS)
    if place.table_id not in {"", table.id}:
        problem = "this engine has published to another table"
        raise TableError(table.uri, problem, "name that one, or give the engine a new store")
    if logs is None and table.logs_id:
        raise TableError(table.uri, _WITH_LOGS, _PUBLISH_LOGS)
    if logs is not None:
        if not table.logs_id:
            raise TableError(table.uri, _WITHOUT_LOGS, _PUBLISH_NO_LOGS)
        logs.open_beside(table)


def publish(
    outbox: OutboxReader, table: SharedTable, place: Place, logs: LogsTable | None = None
) -> Place:
    """Publish some commits that follow a place; returns the place reached, the same without any.

    What `logs` takes of them is published first: whoever has states finds their logs.

    The tables are open. Raises TableError; it may have been done then, which the next call finds.
    """
    place = _found(outbox, table, place)
    reached = place if logs is None else _found(outbox, logs, place)
    batch = outbox.batch(place, table.layout, _MOST_ROWS, _MOST_BYTES)
    if batch is None:
        return place
    if logs is not None and reached.published < batch.last:
        rows = outbox.logs(reached, batch.last)
        logs.append(place.engine, batch.last, batch.token, rows)
    table.append(place.engine, batch.last, batch.token, batch.rows)
    return replace(place, published=batch.last, token=batch.token, table_id=table.id)


def _found(outbox: OutboxReader, table: SharedTable, place: Place) -> Place:
    """Return the place that a table has the engine at."""
    last, token = table.published(place.engine)
    if (last, token) == (place.published, place.token):
        return place
    if last < place.published:
        raise TableError(table.uri, _GONE, _RESTORE)
    if last == place.published or outbox.token(last) != token:
        raise TableError(table.uri, _COPIED, _ONE_OF_THEM)
    return replace(place, published=last, token=token, table_id=table.id)
