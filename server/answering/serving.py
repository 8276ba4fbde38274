"""The query protocols of an engine process, as its parent wants them."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from framewalk.engine.telling import tell
from framewalk.queries.graphql import GraphqlOptions, edits_beside
from framewalk.queries.protocols import Protocols, served
from framewalk.queries.reading import secure
from framewalk.queries.serving import ServingOptions
from framewalk.queries.sql_endpoint import SqlOptions
from framewalk.receiver.transports import server_ssl_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

    from framewalk.queries.protocols import Served
    from framewalk.receiver.transports import Tls
    from framewalk.server.answering.wanted import RestEndpoint, Wanted


@contextmanager
def answering(
    connection: duckdb.DuckDBPyConnection, store_path: Path, wanted: Wanted
) -> Iterator[Served]:
    """Answer queries until the end of the block. Raises InputError where SQL has no port."""
    secure(connection, wanted.archive_folder)
    protocols = Protocols(
        sql=_sql(wanted), graphql=_graphql(wanted, store_path), promql=_promql(wanted)
    )
    with served(connection, store_path, protocols) as found:
        for name, port in found.ports.items():
            tell(logging.INFO, f"{name.lower()} served", host=found.hosts[name], port=port)
        yield found


def _sql(wanted: Wanted) -> SqlOptions | None:
    sql = wanted.sql
    if sql is None:
        return None
    return SqlOptions(
        host=sql.host,
        port=sql.port,
        token=sql.token,
        ssl_context=_context(sql.tls),
        host_names=sql.host_names,
        max_rows=sql.max_rows,
        timeout_s=sql.timeout_s,
        certificate=sql.tls.certificate_chain_path if sql.tls is not None else None,
        metrics_url=sql.metrics_url,
        memory_bytes=wanted.memory_bytes,
        watcher=wanted.watcher,
        refused_s=wanted.refused_s,
        is_announced=wanted.is_written,
    )


def _graphql(wanted: Wanted, store_path: Path) -> GraphqlOptions | None:
    endpoint = wanted.graphql
    if endpoint is None:
        return None
    return GraphqlOptions(
        **_shared(wanted, endpoint),
        ttl_days=wanted.ttl_days,
        record_ttl_days=endpoint.record_ttl_days,
        template_paths=endpoint.template_paths,
        template_edits=edits_beside(store_path),
        keeps_edits=endpoint.keeps_templates and wanted.is_written,
    )


def _promql(wanted: Wanted) -> ServingOptions | None:
    endpoint = wanted.promql
    return None if endpoint is None else ServingOptions(**_shared(wanted, endpoint))


def _shared(wanted: Wanted, endpoint: RestEndpoint) -> dict[str, Any]:
    """Return the options that an endpoint of any protocol has."""
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "token": endpoint.token,
        "ssl_context": _context(endpoint.tls),
        "host_names": endpoint.host_names,
        "answers_pages": True,
        "timeout_s": endpoint.timeout_s,
        "memory_bytes": wanted.memory_bytes,
        "watcher": wanted.watcher,
        "refused_s": wanted.refused_s,
    }


def _context(tls: Tls | None) -> ssl.SSLContext | None:
    return server_ssl_context(tls, ["http/1.1"]) if tls is not None else None
