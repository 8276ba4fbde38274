"""Which names a store has for a minute: what caps are counted by (caps.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from framewalk.engine.caps import OTHERS
from framewalk.engine.schemas import UNKNOWN, UNKNOWN_KEYS
from framewalk.engine.store.connection import FAULTS, explained
from framewalk.engine.views import (
    BUCKET,
    ENTITY,
    RESOLUTIONS,
    entities_table,
    rolled_table,
    states_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import duckdb
    import polars as pl

    from framewalk.engine.oal import Plan, Scope

_MINUTE_US: Final = 60_000_000
_IN_MINUTES: Final = (
    f"{BUCKET} IN (SELECT make_timestamp(unnest($minutes::BIGINT[]) * {_MINUTE_US}))"
)


class StoredNames:
    """The names in a store, what its transaction has appended included.

    Minutes are Int64, since 1970. All raise StoreError.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, path: Path, plan: Plan) -> None:
        self.plan = plan
        self._connection = connection
        self._path = path

    def newest_minute(self) -> int | None:
        """Return the newest minute that ever had states; None without any."""
        minute: int | None = self._frame(
            f"SELECT {_minute('max(minute)')} FROM internal.newest"
        ).item()
        return minute

    def entities_in(self, minutes: Sequence[int]) -> pl.DataFrame:
        """Return the services and pods that have states in minutes, or are at one end of some.

        `minute`, `service` and `instance` (String, null for the service itself), each once. Unknown
        is none.
        """
        named = " UNION ALL ".join(
            f"SELECT {BUCKET}, {service} AS service, {instance} AS instance "
            f"FROM {_named(scope.scope)} WHERE {_IN_MINUTES} AND {service} <> '{UNKNOWN}'"
            for scope in self.plan.scopes
            for service, instance in _entities_of(scope.scope)
        )
        sql = f"SELECT DISTINCT {_minute(BUCKET)} AS minute, service, instance FROM ({named})"
        return self._frame(sql, {"minutes": list(minutes)})

    def endpoints_in(self, services: pl.DataFrame) -> pl.DataFrame:
        """Return the endpoints of services in minutes: `minute`, `service`, `endpoint`, each once.

        `services` has `minute` and `service`. OTHERS is none.
        """
        named = " UNION ALL ".join(
            f"SELECT {BUCKET}, {service} AS service, {endpoint} AS endpoint "
            f"FROM {_named(scope.scope)} WHERE {_IN_MINUTES} AND {endpoint} <> '{OTHERS}' "
            f"AND {service} IN (SELECT unnest($services::VARCHAR[]))"
            for scope in self.plan.scopes
            for service, endpoint in _endpoints_of(scope.scope)
        )
        parameters = {
            "minutes": services["minute"].unique().to_list(),
            "services": services["service"].unique().to_list(),
        }
        sql = f"SELECT DISTINCT {_minute(BUCKET)} AS minute, service, endpoint FROM ({named})"
        return self._frame(sql, parameters).join(services, on=["minute", "service"], how="semi")

    def unknown_in(self, hours: Sequence[int]) -> pl.DataFrame:
        """Return `hour` (since 1970) and UNKNOWN_KEYS of what had no name then, each once."""
        keys = ", ".join(UNKNOWN_KEYS)
        sql = (
            f"SELECT DISTINCT epoch({BUCKET})::BIGINT // 3600 AS hour, {keys} "
            f"FROM internal.unknown_peers WHERE address <> '{OTHERS}' AND {BUCKET} IN "
            "(SELECT make_timestamp(unnest($hours::BIGINT[]) * 3600000000))"
        )
        return self._frame(sql, {"hours": list(hours)})

    def _frame(self, sql: str, parameters: Mapping[str, object] | None = None) -> pl.DataFrame:
        try:
            rows: pl.DataFrame = self._connection.sql(sql, params=parameters).pl()
        except FAULTS as error:
            raise explained(self._path, error) from error
        return rows


def _named(scope: Scope) -> str:
    """Return the relation of a scope's rows by minute with the names of their entities."""
    tables = (states_table(scope), rolled_table(scope, RESOLUTIONS[0]))
    rows = " UNION ALL ".join(f"SELECT {BUCKET}, {ENTITY} FROM {table}" for table in tables)
    return f"({rows}) JOIN {entities_table(scope)} USING ({ENTITY})"


def _minute(bucket: str) -> str:
    return f"epoch_us({bucket}) // {_MINUTE_US}"


def _entities_of(scope: Scope) -> Iterator[tuple[str, str]]:
    """Yield the expressions of each service, and of each pod, that the rows of a scope name."""
    for side in ("", "source_", "dest_"):
        service, instance = f"{side}service", f"{side}instance"
        if service in scope.keys:
            yield service, "NULL::VARCHAR"
        if instance in scope.keys:
            yield service, instance


def _endpoints_of(scope: Scope) -> Iterator[tuple[str, str]]:
    for side in ("", "dest_"):
        if f"{side}endpoint" in scope.keys:
            yield f"{side}service", f"{side}endpoint"
