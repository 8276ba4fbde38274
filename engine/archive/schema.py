"""The tables of the archive: one module says what their columns are called and how they lie.

A file holds rows of one kind. `http` has a request a row, with sums over the reads and writes of
its own message; `connection` has the connects, accepts and closes, `transfer` the reads and writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from framewalk.engine.schemas import (
    ENDPOINT_LENGTH,
    HTTP_METHODS,
    HTTP_VERSIONS,
    KERNEL_OPERATIONS,
    LONGEST_SERVED_NS,
    OPERATION_LEAVES,
    READ_SYSCALLS,
    TRACE_PROVIDERS,
    WRITE_SYSCALLS,
)
from framewalk.engine.views import literal

if TYPE_CHECKING:
    from collections.abc import Sequence

HTTP: Final = "http"
CONNECTION: Final = "connection"
TRANSFER: Final = "transfer"
KINDS: Final = (HTTP, CONNECTION, TRANSFER)
OPERATIONS_OF: Final = {CONNECTION: KERNEL_OPERATIONS[:3], TRANSFER: KERNEL_OPERATIONS[3:]}

# Of a text that a sender chose so many characters are kept.
PATH_LENGTH: Final = 2_048
NAME_LENGTH: Final = 255

TIME: Final = "time"
REQUEST: Final = "request"
# Of a request that stands for others: for how many, and what it shares with those of one fate.
WEIGHT: Final = "weight"
SAMPLE: Final = "sample"
UNKNOWN_MEMBER: Final = "UNKNOWN"

# By these a query finds its rows, so rows that are alike in them lie together.
EDGE: Final = (
    "local_service",
    "remote_service",
    "role",
    "local_instance",
    "remote_instance",
    "tls_mode",
)
PEER_COLUMNS: Final = (*EDGE, "local_known", "components")
CONNECTION_COLUMNS: Final = (
    "node",
    "cluster",
    "local_address",
    "local_port",
    "remote_address",
    "remote_port",
)

_MEASURES: Final = {
    operation: tuple(
        leaf.column
        for leaf in OPERATION_LEAVES[operation]
        if leaf.column.endswith(("_ns", "_bytes", "_count"))
    )
    for operation in (*OPERATIONS_OF[TRANSFER], "http")
}


def summed(operation: str) -> tuple[str, ...]:
    """Return what is added up of a request's reads or writes."""
    return ("duration_ns", *_MEASURES[operation])


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: `members` are the names of its numbers, where those are few."""

    name: str
    type: pa.DataType
    members: tuple[str, ...] = ()

    @property
    def is_packed(self) -> bool:
        """Whether it is written as numbers."""
        return bool(pa.types.is_int64(self.type) or pa.types.is_timestamp(self.type))

    @property
    def has_dictionary(self) -> bool:
        """Whether its values are written once, and numbers in their place."""
        return not self.is_packed and not pa.types.is_boolean(self.type)


_INT: Final = pa.int64()
_TEXT: Final = pa.string()


def _numbers(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, _INT) for name in names)


_COMMON: Final = (
    Column(TIME, pa.timestamp("ns")),
    *_numbers("duration_ns"),
    *(Column(name, _TEXT) for name in EDGE),
    Column("local_known", pa.bool_()),
    Column("components", pa.int16()),
    *(Column(name, pa.int32() if name.endswith("_port") else _TEXT) for name in CONNECTION_COLUMNS),
    *_numbers(REQUEST),
)
_SUMS: Final = _numbers(
    *(
        f"{operation}_{name}"
        for operation in OPERATIONS_OF[TRANSFER]
        for name in ("count", *summed(operation))
    )
)
_SYSCALLS: Final = (*READ_SYSCALLS, *WRITE_SYSCALLS)

TABLES: Final[dict[str, tuple[Column, ...]]] = {
    HTTP: (
        *_COMMON,
        *_numbers("serving_before_ns", "serving_after_ns"),
        Column("method", _TEXT, HTTP_METHODS),
        Column("path", _TEXT),
        Column("endpoint", _TEXT),
        Column("status_code", pa.int32()),
        *_numbers(*_MEASURES["http"]),
        Column("version", _TEXT, HTTP_VERSIONS),
        Column("host", _TEXT),
        Column("trace_provider", _TEXT, TRACE_PROVIDERS),
        *(Column(f"trace_{name}", _TEXT) for name in ("id", "segment_id", "span_id")),
        *_SUMS,
        *_numbers(WEIGHT, SAMPLE),
    ),
    CONNECTION: (
        *_COMMON,
        Column("operation", _TEXT),
        Column("success", pa.bool_()),
    ),
    TRANSFER: (
        *_COMMON,
        Column("operation", _TEXT),
        Column("syscall", _TEXT),
        Column("l2_ifindex", _INT),
        Column("l2_device_name", _TEXT),
        *_numbers(*dict.fromkeys((*_MEASURES["read"], *_MEASURES["write"]))),
    ),
}


# Texts that are few.
DICTIONARIES: Final = frozenset({*EDGE, "method", "operation", "syscall", "l2_device_name"})


def arrow_schema(kind: str) -> pa.Schema:
    """Return the columns of a table as they are read."""
    return pa.schema([(column.name, column.type) for column in TABLES[kind]])


def view_name(kind: str) -> str:
    """Return the name of the store's view of a table."""
    return f"{kind}_logs"


# What a view shows in place of a column, and of what.
_SHOWN: Final = {
    "duration_ns": ("duration_ns",),
    "local_instance": ("local_instance AS local_pod",),
    "remote_instance": ("remote_instance AS remote_pod",),
    "local_known": (),
    "components": (),
}
# A sender chose these numbers: what does not fit is null, and no error of the whole view.
_SERVING: Final = "try_cast(duration_ns::HUGEINT - serving_before_ns - serving_after_ns AS BIGINT)"
_SHOWN_OF_HTTP: Final = {
    "duration_ns": ("duration_ns", "duration_ns // 1000000 AS latency_ms"),
    "serving_before_ns": (
        'try(make_timestamp_ns(epoch_ns("time") + serving_before_ns)) AS serving_start',
        f"{_SERVING} AS serving_duration_ns",
    ),
    "serving_after_ns": (),
    WEIGHT: (f"coalesce({WEIGHT}, 1) AS {WEIGHT}",),
    "endpoint": (
        f"coalesce(endpoint, left(method || ':' || path, {ENDPOINT_LENGTH})) AS endpoint",
    ),
}


# When a request of a file began to be served, or else its log, and for how long it was.
_SERVED_NS: Final = 'epoch_ns("time")::HUGEINT + coalesce(serving_before_ns, 0)'
_LASTED_NS: Final = (
    "least(duration_ns::HUGEINT - coalesce(serving_before_ns, 0) - coalesce(serving_after_ns, 0), "
    f"{LONGEST_SERVED_NS})"
)


def being_served(since_ns: int, until_ns: int) -> str:
    """Return the condition, as SQL, for the requests of files that were being served in a range."""
    return f"{_SERVED_NS} < {until_ns} AND {_SERVED_NS} + {_LASTED_NS} >= {since_ns}"


def select_rows(kind: str, files: str, condition: str) -> str:
    """Return the SQL of rows of files as the view shows them, with `components` beside."""
    return f"SELECT {view_select(kind)}, components FROM {files} WHERE {condition}"


def read_files(paths: Sequence[str], *, have_all_columns: bool) -> str:
    """Return the SQL that reads files; columns that some do not have are null there."""
    names = ", ".join(literal(path) for path in paths)
    # To look into each file before the first is read costs a query as many reads as there are.
    by_name = "" if have_all_columns else ", union_by_name = true"
    return f"read_parquet([{names}], hive_partitioning = false{by_name})"


def view_select(kind: str) -> str:
    """Return what a view selects of the columns of its files, as SQL."""
    shown = _SHOWN | (_SHOWN_OF_HTTP if kind == HTTP else {})
    parts = (shown.get(column.name, (f'"{column.name}"',)) for column in TABLES[kind])
    return ", ".join(one for part in parts for one in part)
