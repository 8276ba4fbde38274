"""Archived logs whose addresses had no name, resolved again with what is known by now.

The archive is written again, a file at a time: what it shows, and what is made of it later, has
the names. Of each log a replay would keep as much: one within a service is dropped (analysis.md,
section 2). Logs of which no side had a name were never archived.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from framewalk.engine.archive import KINDS, NS_PER_MINUTE
from framewalk.engine.remaking.recomputing import forget_unfinished
from framewalk.engine.schemas import INSTANCE_LENGTH, SERVICE_LENGTH, UNKNOWN
from framewalk.engine.stages import cluster_prefix

if TYPE_CHECKING:
    from collections.abc import Collection

    from framewalk.engine.archive import Archive, ArchivedFile
    from framewalk.engine.kubernetes import Entities
    from framewalk.engine.store import Store

_SIDES: Final = ("local", "remote")
_NAMES: Final = tuple(f"{side}_{name}" for side in _SIDES for name in ("service", "instance"))
_SENT: Final = ("cluster", *(f"{side}_{name}" for side in _SIDES for name in ("address", "port")))
_NEEDED: Final = ("time", "role", *_NAMES, "local_known", *_SENT)
# What the name of a Pod never has all of.
_IS_IP: Final = r"^[0-9.]+$|:"


def resolve_again(
    store: Store, archive: Archive, entities: Entities, minutes: Collection[int]
) -> int:
    """Name what had no name in the archived logs of some minutes (since 1970); returns how many.

    What the store tells of unknown peers of these minutes goes where they have a name now. Raises
    StoreError.
    """
    resolving = Resolving(store, archive, entities)
    while not resolving.is_done:
        resolving.step(minutes)
    return resolving.named


class Resolving:
    """The same, a file at a time: between steps logs may come and files be merged.

    `named` logs have got a name by now, and it `is_done` once no file is left to look at.
    """

    def __init__(self, store: Store, archive: Archive, entities: Entities) -> None:
        self.named = 0
        self.is_done = False
        self._store = store
        self._archive = archive
        self._entities = entities
        self._seen: set[int] = set()

    def step(self, minutes: Collection[int], elapsed_s: float = 0) -> None:
        """Look at the next file, at a time of the clock of `Archive.tidy`; raises StoreError."""
        if (file := self._next(minutes)) is not None:
            self._look(file, minutes, elapsed_s)
            return
        if minutes:
            _forget_named(self._store, self._archive, self._entities, minutes)
        self.is_done = True

    def _next(self, minutes: Collection[int]) -> ArchivedFile | None:
        if not minutes:
            return None
        first_ns, end_ns = min(minutes) * NS_PER_MINUTE, (max(minutes) + 1) * NS_PER_MINUTE
        logs = self._archive.logs()
        files = chain.from_iterable(logs.files(kind, first_ns, end_ns) for kind in KINDS)
        return next((file for file in files if file.number not in self._seen), None)

    def _look(self, file: ArchivedFile, minutes: Collection[int], elapsed_s: float) -> None:
        entities = self._entities
        self._seen.add(file.number)
        count = sum(
            _named_rows(pl.DataFrame(pa.Table.from_batches([batch])), entities, minutes)
            for batch in self._archive.logs().batches(file, _NEEDED)
        )
        if not count:
            return
        # What was made before has the old names.
        forget_unfinished(self._store)
        new = self._archive.change(
            file, lambda table: _with_names(table, entities, minutes), elapsed_s
        )
        if new is not None:
            self._seen.update(one.number for one in new)
            self.named += count


def _named_rows(rows: pl.DataFrame, entities: Entities, minutes: Collection[int]) -> int:
    return int(_resolved(rows, entities, minutes)["is_named"].sum())


def _with_names(table: pa.Table, entities: Entities, minutes: Collection[int]) -> pa.Table:
    """Return a table of a file with the names, without logs within a service."""
    rows = _resolved(pl.DataFrame(table.select(_NEEDED)), entities, minutes)
    for name in _NAMES:
        own = rows[name].to_arrow().cast(pa.string()).dictionary_encode()
        table = table.set_column(table.schema.get_field_index(name), name, own)
    known = rows["local_known"].to_arrow()
    table = table.set_column(table.schema.get_field_index("local_known"), "local_known", known)
    return table.filter((~rows["is_named"] | ~rows["is_within"]).to_arrow())


def _resolved(rows: pl.DataFrame, entities: Entities, minutes: Collection[int]) -> pl.DataFrame:
    """Return rows of _NEEDED with `is_named` (a side has got a name) and `is_within` a service."""
    rows = rows.with_columns(
        pl.col(pl.Categorical, pl.Enum).cast(pl.String), time_ns=pl.col("time").cast(pl.Int64)
    )
    wanted = pl.Series(list(minutes), dtype=pl.Int64)
    is_asked = (pl.col("time_ns") // NS_PER_MINUTE).is_in(wanted.implode())
    is_server = pl.col("role") == "server"
    is_ip = {side: pl.col(f"{side}_address").str.contains(_IS_IP) for side in _SIDES}
    port = (
        pl.when(is_server & is_ip["local"])
        .then("local_port")
        .when(~is_server & is_ip["remote"])
        .then("remote_port")
        .otherwise(0)
    )
    rows = rows.with_columns(is_asked=is_asked, port=port, is_named=pl.lit(value=False))
    for side in _SIDES:
        is_nameless = pl.col(f"{side}_service") == UNKNOWN
        asked = rows.with_row_index("row").filter(is_nameless & is_asked & is_ip[side])
        if asked.is_empty():
            continue
        is_called = is_server if side == "local" else ~is_server
        addresses = asked.select(
            "time_ns", "port", "cluster", ip=f"{side}_address", is_called=is_called
        )
        looked_up = entities.lookup(addresses)
        names = asked.select("row", prefix=cluster_prefix("cluster")).with_columns(
            looked_up["service", "instance"]
        )
        names = names.filter(pl.col("service").is_not_null()).select(
            "row",
            new_service=(pl.col("prefix") + pl.col("service")).str.head(SERVICE_LENGTH),
            new_instance=pl.col("instance").str.head(INSTANCE_LENGTH),
        )
        joined = rows.with_row_index("row").join(names, on="row", how="left", maintain_order="left")
        is_new = pl.col("new_service").is_not_null()
        changed = {
            f"{side}_service": pl.coalesce("new_service", f"{side}_service"),
            f"{side}_instance": pl.when(is_new).then("new_instance").otherwise(f"{side}_instance"),
            "is_named": pl.col("is_named") | is_new,
        }
        if side == "local":
            changed["local_known"] = pl.col("local_known") | is_new
        rows = joined.with_columns(**changed).drop("row", "new_service", "new_instance")
    return rows.with_columns(is_within=pl.col("local_service") == pl.col("remote_service"))


def _forget_named(
    store: Store, archive: Archive, entities: Entities, minutes: Collection[int]
) -> None:
    """Delete unknown peers that have a name, with a partner that has one, of such minutes alone.

    Not where only requests are archived: their other logs have no name still.
    """
    rows = store.query(
        "SELECT rowid AS number, partner, cluster, address AS ip, port, "
        "side = 'server' AS is_called, epoch_ns(first_seen) AS first_ns, "
        "epoch_ns(last_seen) AS last_ns "
        "FROM internal.unknown_peers"
    ).pl()
    rows = rows.filter(pl.col("partner") != UNKNOWN)
    whole = set(minutes) - archive.requests_only_minutes(min(minutes), max(minutes))
    is_whole = pl.Series(sorted(whole), dtype=pl.Int64).implode()
    for name in ("first_ns", "last_ns"):
        rows = rows.filter((pl.col(name) // NS_PER_MINUTE).is_in(is_whole))
        found = entities.lookup(rows.rename({name: "time_ns"}))
        rows = rows.filter(found["service"].is_not_null())
    if rows.height:
        numbers = rows["number"].to_list()
        with store.transaction():
            store.run(
                "DELETE FROM internal.unknown_peers WHERE rowid IN (SELECT unnest(?::BIGINT[]))",
                [numbers],
            )
