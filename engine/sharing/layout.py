"""The columns of the table that engines share, and frames of a store's rows as rows of it.

One table has the rows of all scopes, so that what a commit writes is one transaction: columns of
other scopes are null. `day` is the partition.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from framewalk.engine.oal import SCOPES, EndpointPatterns
from framewalk.engine.schemas import UNKNOWN_PEERS_SCHEMA
from framewalk.engine.states import KEY, MINUTE, TRAITS, VALUE
from framewalk.engine.store import UNKNOWN_PEERS
from framewalk.engine.views import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from polars._typing import PolarsDataType

    from framewalk.engine.oal import Plan, State

# Of the columns and what they mean: others cannot be read here.
LAYOUT_VERSION: Final = 1
DAY: Final = "day"
ENGINE: Final = "engine"
COMMIT: Final = "commit"
SCOPE: Final = "scope"
# One row of each commit: when it was made (us since 1970), by whom, and what it counted.
COMMITS: Final = "commits"
MADE_US: Final = "made_us"
LABEL: Final = "label"
COUNTERS: Final = "counters"
_UNKNOWN: Final = "unknown"
_COUNTERS_TYPE: Final = pl.List(
    pl.Struct({"kind": pl.String, "name": pl.String, "count": pl.Int64})
)
_COMMITS: Final[dict[str, PolarsDataType]] = {
    MADE_US: pl.Int64,
    LABEL: pl.String,
    COUNTERS: _COUNTERS_TYPE,
}
COMMITS_SCHEMA: Final = pl.Schema(_COMMITS)
_NAMES: Final = tuple(dict.fromkeys(name for scope in SCOPES.values() for name in scope.keys))
_MINUTE_US: Final = 60_000_000
_MINUTES_AN_HOUR: Final = 60
# Years that are written with four digits; what is said to be of others is in the first or last.
_FIRST_S: Final = -62_135_596_800
_LAST_S: Final = 253_402_300_799


@dataclass(frozen=True, slots=False)
class Layout:
    """The columns of a table: `states` maps the name of each state to its column.

    `types` has the type of each of these columns.
    """

    states: Mapping[str, str]
    types: Mapping[str, PolarsDataType]

    @cached_property
    def schema(self) -> pl.Schema:
        """All columns of the table."""
        return pl.Schema(
            {
                ENGINE: pl.String,
                COMMIT: pl.Int64,
                SCOPE: pl.String,
                MINUTE: pl.Int64,
                DAY: pl.String,
                **dict.fromkeys(_NAMES, pl.String),
                TRAITS: pl.Int64,
                **self.types,
                _UNKNOWN: pl.Struct(UNKNOWN_PEERS_SCHEMA),
                **COMMITS_SCHEMA,
            }
        )

    def shared(self, view: str, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows of a commit (its scope's view, or another kind) as rows of the table.

        Without the columns of other scopes, ENGINE and COMMIT. States that the table does not have
        are left out.
        """
        if view == COMMITS:
            minute = pl.col(MADE_US) // _MINUTE_US
        elif view == UNKNOWN_PEERS:
            minute = pl.col("hour") * _MINUTES_AN_HOUR
            rows = rows.select("hour", pl.struct(UNKNOWN_PEERS_SCHEMA.names()).alias(_UNKNOWN))
        else:
            minute = pl.col(BUCKET).dt.epoch("us") // _MINUTE_US
        named = rows.with_columns(minute.alias(MINUTE), pl.lit(view).alias(SCOPE))
        named = named.rename({name: column for name, column in self.states.items() if name in rows})
        day = pl.from_epoch((pl.col(MINUTE) * 60).clip(_FIRST_S, _LAST_S)).dt.date()
        wanted = [name for name in self.schema if name in named.columns]
        return named.select(*wanted, day.cast(pl.String).alias(DAY)).cast(
            {name: self.schema[name] for name in wanted}
        )

    def whole(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return rows with all columns of the table, in their order."""
        absent = [
            pl.lit(None, dtype).alias(name)
            for name, dtype in self.schema.items()
            if name not in rows.columns
        ]
        return rows.with_columns(absent).select(self.schema.names())

    def stored(self, rows: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
        """Yield the rows of each scope (by its view) and of UNKNOWN_PEERS as commits wrote them."""
        bucket = (pl.col(MINUTE) * _MINUTE_US).cast(pl.Datetime("us")).alias(BUCKET)
        for scope in SCOPES.values():
            own = rows.filter(pl.col(SCOPE) == scope.view)
            if own.is_empty():
                continue
            held = [one for one in self.types if own[one].null_count() < own.height]
            states = [pl.col(column).alias(self.states_of[column]) for column in held]
            yield scope.view, own.select(bucket, *scope.keys, TRAITS, *states)
        unknown = rows.filter(pl.col(SCOPE) == UNKNOWN_PEERS).select(_UNKNOWN).unnest(_UNKNOWN)
        if unknown.height:
            yield UNKNOWN_PEERS, unknown.select(UNKNOWN_PEERS_SCHEMA.names())

    @cached_property
    def states_of(self) -> dict[str, str]:
        """The names of states by their columns."""
        return {column: name for name, column in self.states.items()}


def commits_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the commits that rows of a table are of: ENGINE, COMMIT and COMMITS_SCHEMA."""
    return rows.filter(pl.col(SCOPE) == COMMITS).select(ENGINE, COMMIT, *COMMITS_SCHEMA)


def layout_of(plan: Plan) -> Layout:
    """Return the columns for what a plan computes."""
    states = {state.name: state for scope in plan.scopes for state in scope.states}
    columns = {name: f"state_{number}" for number, name in enumerate(states)}
    types = {columns[name]: _type(state) for name, state in states.items()}
    return Layout(MappingProxyType(columns), MappingProxyType(types))


def _type(state: State) -> PolarsDataType:
    if not state.keyed:
        return pl.Int64()
    key = pl.Int64 if state.has_bucket else pl.String
    return pl.List(pl.Struct({KEY: key, VALUE: pl.Int64}))


def definitions_of(plan: Plan) -> tuple[str, ...]:
    """Return the definitions of a plan as text, in their order."""
    return tuple(str(metric.definition) for metric in plan.metrics)


def settings_of(plan: Plan) -> dict[str, Any]:
    """Return Apdex thresholds and patterns of endpoints, to be written as JSON."""
    patterns = plan.endpoint_patterns
    return {
        "apdex": [dict(plan.apdex_thresholds_ms), plan.apdex_default_ms],
        "patterns": None
        if patterns is None
        else [list(patterns.default), {k: list(v) for k, v in patterns.per_service.items()}],
    }


def plan_settings(said: dict[str, Any] | None) -> tuple[Any, ...]:
    """Return what `settings_of` has said, as `make_plan` takes it; nothing for None."""
    if said is None:
        return ()
    patterns = said["patterns"]
    if patterns is not None:
        default, per_service = patterns
        each = {name: tuple(own) for name, own in per_service.items()}
        patterns = EndpointPatterns(tuple(default), MappingProxyType(each))
    return (*said["apdex"], patterns)


def digest_of(plan: Plan) -> str:
    """Return the same text for plans whose states may be added up: definitions and thresholds."""
    patterns = plan.endpoint_patterns
    said = {
        "version": LAYOUT_VERSION,
        "definitions": sorted(definitions_of(plan)),
        "apdex": [sorted(plan.apdex_thresholds_ms.items()), plan.apdex_default_ms],
        "patterns": None
        if patterns is None
        else [
            list(patterns.default),
            sorted((k, list(v)) for k, v in patterns.per_service.items()),
        ],
    }
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
