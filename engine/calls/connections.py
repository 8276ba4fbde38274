"""What services without HTTP are used for: bytes of connections, by the request of the time."""

from __future__ import annotations

from typing import Final

import polars as pl

from framewalk.engine.calls.pairing import CLIENTS
from framewalk.engine.calls.sources import DERIVATION, INFERRED, served_meanwhile
from framewalk.engine.schemas import UNKNOWN, UNKNOWN_DERIVATION
from framewalk.engine.states import MINUTE

NS_PER_MINUTE: Final = 60 * 10**9
# A log of a connection as its client saw it; times by the clock of its node. `client_pod` is who
# calls, as HTTP_LOGS_SCHEMA has it. A connect has no bytes, and what is no connect has some.
TCP_LOGS_SCHEMA: Final = pl.Schema(
    {
        "time_ns": pl.Int64,
        "duration_ns": pl.Int64,
        "cluster": pl.String,
        "client_pod": pl.String,
        "client_port": pl.Int32,
        "source_service": pl.String,
        "dest_service": pl.String,
        "connects": pl.Int64,
        "bytes_written": pl.Int64,
        "bytes_read": pl.Int64,
    }
)
_COUNTS: Final = ("connects", "bytes_written", "bytes_read")
_KEYS: Final = (MINUTE, "source_service", "source_endpoint", "dest_service", DERIVATION)
_OF_CLIENTS: Final = ("cluster", "local_pod", "local_port", "local_service", "remote_service")
_CLIENT: Final = ("cluster", "client_pod", "client_port")
_INT64_MAX: Final = 2**63 - 1


def connections_of(
    tcp: pl.DataFrame,
    logs: pl.DataFrame,
    endpoints: pl.Series,
    sides: pl.DataFrame,
    calls: pl.DataFrame,
) -> pl.DataFrame:
    """Return who used whom for what: `minute`, both services, the endpoint, and three counts.

    `tcp` has TCP_LOGS_SCHEMA, of one minute. `logs` are HTTP logs, with `endpoints` the names of
    theirs; `sides` has all of those around, and `calls` are what `pair_sides` makes of it.
    """
    # Numbers are told apart faster than texts.
    clients = sides.filter(~pl.col("is_server")).unique(CLIENTS)["log"]
    own = _without_http(tcp, logs.select(_OF_CLIENTS)[clients])
    length_ns = pl.min_horizontal("duration_ns", _INT64_MAX - pl.col("time_ns"))
    asked = own.select(
        "cluster", pod="client_pod", start_ns="time_ns", end_ns=pl.col("time_ns") + length_ns
    )
    source = served_meanwhile(asked, sides, logs, calls)
    service = logs["local_service"].gather(source)
    return counted(
        own.with_columns(
            source_service=pl.coalesce(service, "source_service"),
            source_endpoint=endpoints.gather(source),
        )
    )


def _without_http(tcp: pl.DataFrame, clients: pl.DataFrame) -> pl.DataFrame:
    """Leave out connections that some HTTP log is about.

    What a new one will be used for is not known yet: one without bytes is left out if the two
    services speak HTTP.
    """
    of_http = clients.select("cluster", client_pod="local_pod", client_port="local_port").unique()
    own = tcp.join(of_http, on=_CLIENT, how="anti", maintain_order="left")
    used = own.filter(pl.col("connects") == 0).select(*_CLIENT, is_used=pl.lit(value=True)).unique()
    pairs = clients.select(source_service="local_service", dest_service="remote_service").unique()
    speaking = pairs.with_columns(is_speaking=pl.lit(value=True))
    return (
        own.join(used, on=_CLIENT, how="left", maintain_order="left")
        .join(speaking, on=["source_service", "dest_service"], how="left", maintain_order="left")
        .filter(pl.col("is_used").is_not_null() | pl.col("is_speaking").is_null())
        .drop("is_used", "is_speaking")
    )


def counted(tcp: pl.DataFrame) -> pl.DataFrame:
    """Add up logs of TCP_LOGS_SCHEMA by their minute; `source_endpoint` is null if not known."""
    known = pl.col("source_endpoint").is_not_null()
    return (
        tcp.with_columns(
            pl.col("source_endpoint").fill_null(UNKNOWN),
            (pl.col("time_ns") // NS_PER_MINUTE).alias(MINUTE),
            pl.when(known)
            .then(pl.lit(INFERRED))
            .otherwise(pl.lit(UNKNOWN_DERIVATION))
            .alias(DERIVATION),
        )
        .group_by(_KEYS)
        .agg(pl.col(_COUNTS).sum())
        .sort(_KEYS)
    )
