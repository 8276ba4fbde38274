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
    WRITE_SYSCALLS,
)

if TYPE_CHECKING:
    from collections.abc import Collection

_UNKNOWN_NAME: Final = "UNKNOWN"
_FIRST_FAILURE_STATUS: Final = 500


def _enum_name(column: str, names: tuple[str, ...]) -> pl.Expr:
    return pl.col(column).replace_strict(
        list(range(len(names))), list(names), default=_UNKNOWN_NAME, return_dtype=pl.String
    )


def endpoint_expression() -> pl.Expr:
    """Return the endpoint's name, METHOD:path, from `method` and `path`."""
    name = _enum_name("method", HTTP_METHODS) + ":" + pl.col("path")
    return name.str.head(ENDPOINT_LENGTH)


_DERIVED: Final = {
    "read": {"syscall_name": _enum_name("syscall", READ_SYSCALLS)},
    "write": {"syscall_name": _enum_name("syscall", WRITE_SYSCALLS)},
    "http": {
        "success": pl.col("status_code") < _FIRST_FAILURE_STATUS,
        "method_name": _enum_name("method", HTTP_METHODS),
        "endpoint": endpoint_expression(),
    },
}


def with_derived(frame: pl.DataFrame, operation: str, wanted: Collection[str]) -> pl.DataFrame:
    """Add those of the wanted columns that this operation's logs can have."""
    derived = _DERIVED.get(operation, {})
    return frame.with_columns(
        expression.alias(name) for name, expression in derived.items() if name in wanted
    )


def with_sides(peers: pl.DataFrame) -> pl.DataFrame:
    """Add what definitions call the columns of PEER_SCHEMA: source, dest and detect point.

    Role server: the remote side is the source. Otherwise the local side is (analysis.md,
    section 2).
    """
    serving = pl.col("role") == "server"
    sides = {
        f"{end}_{kind}": pl.when(serving if end == "dest" else ~serving)
        .then(f"local_{kind}")
        .otherwise(f"remote_{kind}")
        for end in ("source", "dest")
        for kind in ("service", "instance")
    }
    return peers.with_columns(
        **sides,
        detect_point=pl.col("role").replace_strict(
            list(ROLES), list(DETECT_POINTS), return_dtype=pl.String
        ),
        component_ids=pl.col("components"),
    )
