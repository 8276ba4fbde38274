"""Columns of logs and peers that definitions ask for, made of others (analysis.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.oal import DETECT_POINTS
from framewalk.engine.schemas import (
    ENDPOINT_LENGTH,
    HTTP_METHODS,
    READ_SYSCALLS,
    ROLES,
    UNKNOWN,
    UNKNOWN_DERIVATION,
    WRITE_SYSCALLS,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from framewalk.engine.oal import EndpointPatterns

SERVING_START: Final = "serving_start_ns"
SERVING: Final = "serving_duration_ns"

_INT64_MAX: Final = 2**63 - 1
_UNKNOWN_NAME: Final = "UNKNOWN"
_FIRST_FAILURE_STATUS: Final = 500

# Rover sends paths of HTTP/1 decoded and without their query, those of HTTP/2 as on the wire.
_BEFORE_QUERY: Final = r"^([^?#]*)"
_ESCAPE: Final = "%"

# No character of a name takes more than four bytes, each of which is written as three (%C3).
_MOST_WRITTEN: Final = ENDPOINT_LENGTH * 12
# What a cut may have left of the last character that was written so.
_CUT_CHARACTER: Final = r"(%[C-Fc-f][0-9A-Fa-f](%[89ABab][0-9A-Fa-f]){0,3})?%?[0-9A-Fa-f]?$"

# Bytes are written as two digits and a blank, so that no two halves of them are taken for one.
_DIGITS: Final = "0123456789abcdefABCDEF"
_ESCAPED_BYTES: Final = {
    f"25 {ord(high):02x} {ord(low):02x} ": f"{high}{low} ".lower()
    for high in _DIGITS
    for low in _DIGITS
}
# Bytes that are UTF-8, as Polars would refuse a whole column for one that is not.
_NEXT: Final = "[89ab]. "
_UTF_8: Final = (
    rf"^([0-7]. |c[2-9a-f] {_NEXT}|d. {_NEXT}"
    rf"|e0 [ab]. {_NEXT}|e[1-9a-cef] {_NEXT}{_NEXT}|ed [89]. {_NEXT}"
    rf"|f0 [9ab]. {_NEXT}{_NEXT}|f[1-3] {_NEXT}{_NEXT}{_NEXT}|f4 8. {_NEXT}{_NEXT})*$"
)


def _enum_name(column: str, names: tuple[str, ...]) -> pl.Expr:
    return pl.col(column).replace_strict(
        list(range(len(names))), list(names), default=_UNKNOWN_NAME, return_dtype=pl.String
    )


def endpoint_expression(
    patterns: EndpointPatterns | None = None, services: pl.Series | None = None
) -> pl.Expr:
    """Return the endpoint's name from `method` and `path`.

    `services` are those that were asked; with `patterns` theirs fold the segments of paths.
    """
    path = pl.col("path").map_batches(_one_spelling, return_dtype=pl.String)
    if patterns is not None and services is not None:
        path = _folded(path, patterns, services)
    return (_enum_name("method", HTTP_METHODS) + ":" + path).str.head(ENDPOINT_LENGTH)


_FOLDED: Final = {
    "number": r"^[0-9]+$",
    "uuid": r"^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
    "hex": r"^[0-9A-Fa-f]{8,}$",
}


def _folded(path: pl.Expr, patterns: EndpointPatterns, services: pl.Series) -> pl.Expr:
    asked = pl.lit(services)
    alike: dict[tuple[str, ...], list[str]] = {}
    for service, names in patterns.per_service.items():
        alike.setdefault(names, []).append(service)
    folded = _with_segments(path, patterns.default)
    for names, of_services in alike.items():
        own = _with_segments(path, names)
        folded = pl.when(asked.is_in(of_services)).then(own).otherwise(folded)
    return folded


def _with_segments(path: pl.Expr, names: Sequence[str]) -> pl.Expr:
    if not names:
        return path
    segment = pl.element()
    for name in reversed(names):
        meets = pl.element().str.contains(_FOLDED[name])
        segment = pl.when(meets).then(pl.lit(f"{{{name}}}")).otherwise(segment)
    return path.str.split("/").list.eval(segment).list.join("/")


def _one_spelling(paths: pl.Series) -> pl.Series:
    """Cut paths at `?` and `#` and decode them (%C3%A9 is é); what is no UTF-8 then stays."""
    paths = paths.str.extract(_BEFORE_QUERY).str.head(_MOST_WRITTEN)
    written = paths.str.contains(_ESCAPE, literal=True)
    if not written.any():
        return paths
    which = written.arg_true()
    decoded = _decoded(paths.gather(which)).str.extract(_BEFORE_QUERY)
    return paths.scatter(which, decoded)


def _decoded(paths: pl.Series) -> pl.Series:
    is_cut = paths.str.len_chars() == _MOST_WRITTEN
    whole = pl.select(
        pl.when(is_cut).then(paths.str.replace(_CUT_CHARACTER, "")).otherwise(paths)
    ).to_series()
    spaced = whole.str.encode("hex").str.replace_all("(..)", "${1} ")
    meant = spaced.str.replace_many(_ESCAPED_BYTES)
    is_text = meant.str.contains(_UTF_8)
    digits = meant.str.replace_all(" ", "", literal=True).zip_with(is_text, _nulls(meant.len()))
    return digits.str.decode("hex").cast(pl.String).fill_null(paths)


def _nulls(count: int) -> pl.Series:
    return pl.repeat(None, count, dtype=pl.String, eager=True)


_DERIVED: Final = {
    "read": {"syscall_name": _enum_name("syscall", READ_SYSCALLS)},
    "write": {"syscall_name": _enum_name("syscall", WRITE_SYSCALLS)},
    "http": {
        "success": pl.col("status_code") < _FIRST_FAILURE_STATUS,
        "method_name": _enum_name("method", HTTP_METHODS),
        "endpoint": endpoint_expression(),
    },
}


def with_derived(
    frame: pl.DataFrame,
    operation: str,
    wanted: Collection[str],
    endpoint: pl.Expr | None = None,
) -> pl.DataFrame:
    """Add those of the wanted columns that this operation's logs can have.

    `endpoint` is the endpoint's name if it is not made of the log alone.
    """
    derived = _DERIVED.get(operation, {})
    if endpoint is not None and "endpoint" in derived:
        derived = derived | {"endpoint": endpoint}
    return frame.with_columns(
        expression.alias(name) for name, expression in derived.items() if name in wanted
    )


def with_sides(peers: pl.DataFrame) -> pl.DataFrame:
    """Add what definitions call the columns of PEER_SCHEMA: source, dest and detect point.

    Role server: the remote side is the source. Otherwise the local side is (analysis.md,
    section 2). A source's endpoint is unknown where the peers do not have it.
    """
    serving = pl.col("role") == "server"
    sides = {
        f"{end}_{kind}": pl.when(serving if end == "dest" else ~serving)
        .then(f"local_{kind}")
        .otherwise(f"remote_{kind}")
        for end in ("source", "dest")
        for kind in ("service", "instance")
    }
    unknown = {"source_endpoint": pl.lit(UNKNOWN), "derivation": pl.lit(UNKNOWN_DERIVATION)}
    return peers.with_columns(
        **sides,
        **{name: value for name, value in unknown.items() if name not in peers.columns},
        detect_point=pl.col("role").replace_strict(
            list(ROLES), list(DETECT_POINTS), return_dtype=pl.String
        ),
        component_ids=pl.col("components"),
    )


def with_serving(
    http: pl.DataFrame, reads: pl.DataFrame, writes: pl.DataFrame, is_server: pl.Series
) -> pl.DataFrame:
    """Add SERVING_START (an event time) and SERVING to HTTP logs; null where there is no telling.

    That is when a request was really being served: the log of a server may begin long before it,
    with the read in which it waited for it (docs/semantics.md, Of real serving).
    All frames have `message`, `time_ns` and `duration_ns`; there is at most one HTTP log in a
    message. `is_server` tells of each HTTP log which side it was seen by. A server serves from the
    end of the last read that began before its first write to the end of its last write; a client is
    served from its first write to the end of its last read.
    """
    written = (
        writes.lazy()
        .group_by("message")
        .agg(first_write_ns=pl.col("time_ns").min(), last_write_ns=_end_ns().max())
    )
    began_before = pl.col("time_ns") < pl.col("first_write_ns")
    times = (
        reads.lazy()
        .select("message", "time_ns", "duration_ns")
        .join(written, on="message", how="inner")
        .group_by("message", "first_write_ns", "last_write_ns")
        .agg(asked_ns=_end_ns().filter(began_before).max(), last_read_ns=_end_ns().max())
    )
    start_ns = pl.when("is_server").then("asked_ns").otherwise("first_write_ns")
    end_ns = pl.when("is_server").then("last_write_ns").otherwise("last_read_ns")
    found = (
        http.lazy()
        .select("message", is_server=pl.lit(is_server))
        .join(times, on="message", how="left", maintain_order="left")
        .select(start_ns=start_ns, end_ns=end_ns)
        .select(
            pl.when(pl.col("start_ns") <= pl.col("end_ns")).then("start_ns").alias(SERVING_START),
            pl.when(pl.col("start_ns") <= pl.col("end_ns"))
            .then(pl.col("end_ns") - pl.col("start_ns"))
            .alias(SERVING),
        )
        .collect()
    )
    return pl.concat([http, found], how="horizontal")


def _end_ns() -> pl.Expr:
    """Return the end of a log; what is beyond the range of times ends with it."""
    return pl.col("time_ns") + pl.min_horizontal(
        pl.col("duration_ns"), _INT64_MAX - pl.col("time_ns")
    )


def remote_ip() -> pl.Expr:
    """Return the remote side's IP address: for a tunnel, what is behind it."""
    outbound = pl.col("has_ztunnel") & (pl.col("ztunnel_by") == 0) & (pl.col("ztunnel_ip") != "")
    return pl.when(outbound).then("ztunnel_ip").otherwise("remote_ip")


def connection_sides(connections: pl.DataFrame) -> pl.DataFrame:
    """Return node, cluster, and the address and the port of both sides of connections.

    `connections` are those of LogFrames, with what is kept. The address of a Pod whose name was
    sent is that name (`local_address`, `remote_address`: String; the ports: Int32).
    """
    ips = {"local": pl.col("local_ip"), "remote": remote_ip()}
    sides: dict[str, pl.Expr] = {}
    for side, ip in ips.items():
        is_pod = pl.col(f"{side}_is_kubernetes")
        sides[f"{side}_address"] = pl.when(is_pod).then(f"{side}_pod").otherwise(ip)
        sides[f"{side}_port"] = pl.when(is_pod).then(f"{side}_pod_port").otherwise(f"{side}_port")
    return connections.select(node="node_name", cluster="cluster_name", **sides)
