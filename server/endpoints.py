"""The endpoints of query protocols that a configuration asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from framewalk.server.answering import RestEndpoint, SqlEndpoint

if TYPE_CHECKING:
    from framewalk.server.config import Config, RestBlock
    from framewalk.server.config import Telemetry as TelemetryBlock

# What listens on every address is found on this one.
_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to be replaced


def sql_endpoint(config: Config) -> SqlEndpoint | None:
    """Return the endpoint of SQL, None where it is turned off."""
    if config.sql is None:
        return None
    return SqlEndpoint(
        host=config.sql.host,
        port=config.sql.port,
        token=token_of(config),
        tls=config.grpc.tls,
        max_rows=config.sql.max_rows,
        timeout_s=config.sql.timeout_s,
        metrics_url=metrics_url(config.telemetry),
        host_names=config.sql.host_names,
    )


def graphql_endpoint(config: Config) -> RestEndpoint | None:
    """Return the endpoint of GraphQL, None where it is turned off."""
    block = config.graphql
    if block is None:
        return None
    return replace(
        _rest_endpoint(config, block),
        keeps_templates=block.keeps_templates,
        template_paths=block.template_paths,
        record_ttl_days=config.core.record_ttl_days,
    )


def promql_endpoint(config: Config) -> RestEndpoint | None:
    """Return the endpoint of Prometheus' API, None where it is turned off."""
    return None if config.promql is None else _rest_endpoint(config, config.promql)


def token_of(config: Config) -> str | None:
    """Return the token that every caller must show, if any."""
    return config.authentication.get_secret_value() if config.authentication else None


def _rest_endpoint(config: Config, block: RestBlock) -> RestEndpoint:
    return RestEndpoint(
        host=block.host,
        port=block.port,
        token=token_of(config),
        tls=config.grpc.tls,
        timeout_s=block.timeout_s,
        host_names=block.host_names,
    )


def metrics_url(block: TelemetryBlock | None) -> str | None:
    """Return where this machine finds the metrics."""
    if block is None:
        return None
    host = _HERE.get(block.host, block.host)
    return f"http://[{host}]:{block.port}" if ":" in host else f"http://{host}:{block.port}"
