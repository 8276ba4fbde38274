"""Log columns that are made when a definition asks for them (analysis.md, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from framewalk.engine.schemas import (
    ENDPOINT_LENGTH,
    HTTP_METHODS,
    READ_SYSCALLS,
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
