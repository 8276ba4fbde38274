"""Archived logs as the stages have them after their connections were resolved."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from framewalk.engine.archive import NS_PER_MINUTE, TABLES, UNKNOWN_MEMBER, arrow_schema
from framewalk.engine.counters import Counters
from framewalk.engine.oal import log_columns
from framewalk.engine.schemas import (
    HTTP_METHODS,
    PEER_SCHEMA,
    READ_SYSCALLS,
    UNKNOWN_PEERS_SCHEMA,
    WRITE_SYSCALLS,
)
from framewalk.engine.stages import ResolvedLogs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from framewalk.engine.archive import ArchivedLogs
    from framewalk.engine.oal import Plan

OPERATIONS_OF: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "http": ("http",),
        "connection": ("connect", "accept", "close"),
        "transfer": ("read", "write"),
    }
)
_SYSCALLS: Final = {"read": READ_SYSCALLS, "write": WRITE_SYSCALLS}
_NS_PER_MS: Final = 1_000_000
# Files are read in parts that are smaller; a stage costs something for each.
_ROWS_AT_ONCE: Final = 200_000
# What columns of logs are made of, where they are not columns of files.
_MADE_OF: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "latency_ms": ("duration_ns",),
        "success": ("success", "status_code"),
        "method_name": ("method",),
        "endpoint": ("method", "path", "endpoint"),
        "path": ("method", "path", "endpoint"),
        "serving_duration_ns": ("duration_ns", "serving_before_ns", "serving_after_ns"),
        "syscall_name": ("syscall",),
    }
)
_ALWAYS: Final = ("time", "duration_ns", *PEER_SCHEMA)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The kinds of logs that a plan needs, and the columns of their files."""

    columns: Mapping[str, tuple[str, ...]]
    has_endpoints: bool

    @classmethod
    def of(cls, plan: Plan) -> Wanted:
        """Return what a plan needs."""
        read = log_columns(plan)
        keys = {key for scope in plan.scopes for key in scope.scope.keys}
        has_endpoints = any(key.endswith("endpoint") for key in keys) or "endpoint" in read
        named = {name for one in read for name in _MADE_OF.get(one, (one,))} | set(_ALWAYS)
        named |= {"method", "path", "endpoint"} if has_endpoints else set()
        kinds = {
            kind: tuple(
                column.name
                for column in TABLES[kind]
                if column.name in named or column.name == "operation"
            )
            for kind, operations in OPERATIONS_OF.items()
            if any(plan.log_states[operation] for operation in operations)
        }
        return cls(MappingProxyType(kinds), has_endpoints)


def resolved_logs(
    logs: ArchivedLogs, wanted: Wanted, minutes: Sequence[int]
) -> Iterator[ResolvedLogs]:
    """Yield the archived logs of some minutes (since 1970, in order), a part at a time."""
    nobody = _no_logs(wanted)
    for kind, columns in wanted.columns.items():
        waiting: list[pl.DataFrame] = []
        for rows in _rows(logs, kind, columns, minutes):
            waiting.append(rows)
            if sum(part.height for part in waiting) >= _ROWS_AT_ONCE:
                yield _resolved(kind, pl.concat(waiting), wanted, nobody)
                waiting = []
        if waiting:
            yield _resolved(kind, pl.concat(waiting), wanted, nobody)


def _rows(
    logs: ArchivedLogs, kind: str, columns: Sequence[str], minutes: Sequence[int]
) -> Iterator[pl.DataFrame]:
    """Yield rows of the files of a kind, those of some minutes; texts are categories."""
    first_ns, end_ns = minutes[0] * NS_PER_MINUTE, (minutes[-1] + 1) * NS_PER_MINUTE
    is_all = len(minutes) == minutes[-1] - minutes[0] + 1
    texts = pl.col(pl.String).exclude("path", "endpoint").cast(pl.Categorical)
    for file in logs.files(kind, first_ns, end_ns):
        is_whole = file.first_ns >= first_ns and file.last_ns < end_ns
        for batch in logs.batches(file, columns):
            rows = pl.DataFrame(pa.Table.from_batches([batch])).rename({"time": "time_ns"})
            rows = rows.with_columns(pl.col("time_ns").cast(pl.Int64), texts)
            if not is_whole:
                rows = rows.filter(pl.col("time_ns").is_between(first_ns, end_ns, closed="left"))
            if not is_all:
                own = pl.col("time_ns") // NS_PER_MINUTE
                rows = rows.filter(own.is_in(list(minutes)))
            if rows.height:
                yield rows


def _resolved(
    kind: str, rows: pl.DataFrame, wanted: Wanted, nobody: Mapping[str, pl.DataFrame]
) -> ResolvedLogs:
    """Return rows of a file as logs of all operations; those of other kinds are none."""
    distinct = rows.select(*PEER_SCHEMA).unique()
    numbered = rows.join(
        distinct.with_row_index("peer"),
        on=list(PEER_SCHEMA),
        how="left",
        nulls_equal=True,
        maintain_order="left",
    ).drop(list(PEER_SCHEMA))
    operations = {**nobody, **dict(_frames(kind, numbered, wanted))}
    peers = distinct.select(pl.col(name).cast(kept) for name, kept in PEER_SCHEMA.items())
    unknown = pl.DataFrame(schema=UNKNOWN_PEERS_SCHEMA)
    return ResolvedLogs(peers, operations, Counters(), unknown)


def _no_logs(wanted: Wanted) -> dict[str, pl.DataFrame]:
    """Return logs of all operations of which there are none."""
    operations: dict[str, pl.DataFrame] = {}
    for kind in OPERATIONS_OF:
        none = pl.DataFrame(arrow_schema(kind).empty_table()).rename({"time": "time_ns"})
        none = none.with_columns(pl.col("time_ns").cast(pl.Int64), peer=pl.lit(0, pl.UInt32))
        operations |= _frames(kind, none.clear(), wanted)
    return operations


def _frames(kind: str, rows: pl.DataFrame, wanted: Wanted) -> Iterator[tuple[str, pl.DataFrame]]:
    if kind == "http":
        yield "http", _requests(rows, wanted)
        return
    for operation in OPERATIONS_OF[kind]:
        own = rows.filter(pl.col("operation") == operation).drop("operation")
        if "syscall" in own.columns:
            own = own.with_columns(_number("syscall", _SYSCALLS[operation]))
        if "l2_device_name" in own.columns:
            own = own.with_columns(pl.col("l2_device_name").cast(pl.String))
        yield operation, own


def _requests(rows: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    """Return rows of requests with the columns of logs; where none asks which, all are alike."""
    made = [(pl.col("duration_ns") // _NS_PER_MS).alias("latency_ms")]
    if "serving_before_ns" in rows.columns:
        total, before, after = (
            pl.col(name).cast(pl.Int128)
            for name in ("duration_ns", "serving_before_ns", "serving_after_ns")
        )
        serving = (total - before - after).cast(pl.Int64, strict=False)
        made.append(serving.alias("serving_duration_ns"))
    if not wanted.has_endpoints:
        path = pl.lit("")
    else:
        # A log without a path has its endpoint's.
        named = pl.col("endpoint").str.slice(pl.col("method").cast(pl.String).str.len_chars() + 1)
        path = pl.coalesce("path", named)
    method = _number("method", HTTP_METHODS) if "method" in rows.columns else pl.lit(0, pl.Int32)
    return rows.with_columns(*made, path.alias("path"), method.alias("method"))


def _number(name: str, members: tuple[str, ...]) -> pl.Expr:
    """Return the numbers of names; what has none has one that no member has."""
    order = pl.Enum([*members, UNKNOWN_MEMBER])
    number = pl.col(name).cast(pl.String).cast(order, strict=False).to_physical()
    return number.cast(pl.Int32).fill_null(len(members)).alias(name)
