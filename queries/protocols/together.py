"""One thread that answers in every protocol that is wanted, each on its port."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from framewalk.engine.errors import InputError
from framewalk.engine.telling import tell
from framewalk.queries.serving import Endpoint, ProtocolServer, Serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import duckdb

    from framewalk.queries.graphql import GraphqlOptions
    from framewalk.queries.serving import ServingOptions
    from framewalk.queries.sql_endpoint import SqlOptions

_SQL: Final = "SQL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocols:
    """What is wanted of each protocol; None is not served.

    The others are answered on the port of SQL, too, as the page there asks them; with
    `has_one_port` on no other. SQL is on its own port alone: the others may be open to whoever can
    show no token.
    """

    sql: SqlOptions | None = None
    graphql: GraphqlOptions | None = None
    promql: ServingOptions | None = None
    has_one_port: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """What is served: hosts and ports of each protocol by its name, such as SQL.

    `cancel_queries` cancels what is under way, so that its memory is free soon after.
    """

    hosts: Mapping[str, str]
    ports: Mapping[str, int]
    cancel_queries: Callable[[], None]


@contextlib.contextmanager
def served(
    connection: duckdb.DuckDBPyConnection, store_path: Path, protocols: Protocols
) -> Iterator[Served]:
    """Serve until the end of the block; `secure` was called with the connection.

    A port of SQL that cannot be had is an InputError. Of others it is told, and the rest goes on:
    they may be what somebody else's server has on this machine, and what is received comes first.
    """
    every = list(_beside(connection, protocols))
    beside = [] if protocols.has_one_port else [one for one in every if _listens(one)]
    hosts: dict[str, str] = {}
    ports: dict[str, int] = {}
    if protocols.sql is None:
        server = ProtocolServer(beside)
        server.start()
        stop, cancel = server.stop, server.cancel_queries
    else:
        # Here, so that nobody loads what is not wanted.
        from framewalk.queries.sql_endpoint import SqlServer  # noqa: PLC0415

        sql = SqlServer(connection, store_path, protocols.sql, beside, every)
        sql.start()
        stop, cancel = sql.stop, sql.cancel_queries
        hosts[_SQL], ports[_SQL] = protocols.sql.host, sql.port
    hosts |= {one.name: one.serving.options.host for one in beside}
    ports |= {one.name: one.port for one in beside}
    try:
        yield Served(hosts, ports, cancel)
    finally:
        stop()


def _beside(connection: duckdb.DuckDBPyConnection, protocols: Protocols) -> Iterator[Endpoint]:
    if protocols.graphql is not None:
        from framewalk.queries import graphql  # noqa: PLC0415

        serving = Serving(connection, protocols.graphql)
        yield Endpoint("GraphQL", serving, graphql.routes(serving, protocols.graphql))
    if protocols.promql is not None:
        from framewalk.queries import promql  # noqa: PLC0415

        serving = Serving(connection, protocols.promql)
        yield Endpoint("PromQL", serving, promql.routes(serving))


def _listens(endpoint: Endpoint) -> bool:
    try:
        endpoint.listen()
    except InputError as error:
        tell(logging.ERROR, f"{endpoint.name.lower()} is not served", problem=error)
        return False
    return True
