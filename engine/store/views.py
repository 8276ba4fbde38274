"""Stage 7: the views that finish states into metric values (store.md), as DuckDB SQL.

A view merges the rows of one entity and bucket while it is read, then finishes each metric. It
reads what is rolled up to its resolution and what is not rolled up yet. So there is one row per
entity and bucket whatever was split, late or replayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from framewalk.engine.oal import PERCENTILES, SCOPES, Keep, rank_of, told_of_bucket
from framewalk.engine.questions import empty_percentiles, percentiles_head, percentiles_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from framewalk.engine.oal import Former, Metric, Scope, State

# Names of metrics with the types of their columns.
Typed: TypeAlias = "Sequence[tuple[str, str]]"

BUCKET: Final = "time_bucket"
ENTITY: Final = "entity"
# How much of a bucket has passed, by the newest minute that the store has.
MINUTES: Final = "minutes"


@dataclass(frozen=True, slots=True)
class Resolution:
    """The length of a bucket; `name` is the last part of a view's name."""

    name: str
    minutes: int


RESOLUTIONS: Final = (Resolution("minute", 1), Resolution("hour", 60), Resolution("day", 1440))


def quoted(identifier: str) -> str:
    """Return an identifier as SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a string as SQL."""
    return "'" + text.replace("'", "''") + "'"


def states_table(scope: Scope) -> str:
    """Return the name of the table that holds a scope's states that are not rolled up yet."""
    return f"internal.{scope.view}_states"


def rolled_table(scope: Scope, resolution: Resolution) -> str:
    """Return the name of the table that holds a scope's states rolled up to a resolution."""
    return f"internal.{scope.view}_{resolution.name}s"


def entities_table(scope: Scope) -> str:
    """Return the name of the dictionary of a scope's entities."""
    return f"internal.{scope.view}_entities"


def seen_table(scope: Scope) -> str:
    """Return the name of the table that says when entities were seen, and what they were like."""
    return f"internal.{scope.view}_seen"


def tables_of_states(scope: Scope) -> list[str]:
    """Return the names of all tables with a scope's states; they have the same columns."""
    return [states_table(scope), *(rolled_table(scope, one) for one in RESOLUTIONS)]


def view_name(scope: Scope, resolution: Resolution) -> str:
    """Return the name of the view of a scope's metrics."""
    return f"{scope.view}_{resolution.name}"


def metrics_macro(
    scope: Scope,
    metrics: Sequence[Metric],
    columns: Mapping[str, str],
    formers: Sequence[Former] = (),
) -> str:
    """Return the statement that makes the macro of a scope's metrics at a resolution.

    The views are read from it. `columns` maps the names of states to columns of the states table.
    """
    keys = ", ".join(map(quoted, scope.keys))
    bucket = f"{BUCKET},\n  "
    ends = f"{BUCKET} + to_minutes({_LENGTH})"
    values = _values(metrics, columns, _Span(BUCKET, ends, _LENGTH), formers)
    shown = [f"{entity_id(scope)} AS entity_id", keys, *values.shown]
    return (
        f"{_macro(scope)}\n"
        f"SELECT {bucket}{_listed(shown)}\n"
        f"FROM (\nSELECT {bucket}{_listed([keys, *values.bounded])}\n"
        f"FROM (\nSELECT {bucket}{_listed([keys, *values.aggregated])}\n"
        f"FROM (\n{_rows(scope)}\n)\n"
        # Joined before it is grouped: so a condition on names or time reaches the tables.
        f"JOIN {entities_table(scope)} USING ({ENTITY})\nGROUP BY ALL\n))"
    )


def empty_macro(scope: Scope, metrics: Sequence[Metric]) -> str:
    """Return the statement that makes a macro with the columns of `metrics_macro`, without rows.

    A view is bound when it is made, with all that it reads: this is bound fast.
    """
    columns = [(BUCKET, "TIMESTAMP"), ("entity_id", "VARCHAR")]
    columns += [(name, "VARCHAR") for name in scope.keys]
    columns += [(metric.name, metric.function.sql_type) for metric in metrics]
    nulls = ", ".join(f"NULL::{sql_type} AS {quoted(name)}" for name, sql_type in columns)
    return f"{_macro(scope)} SELECT {nulls} LIMIT 0"


def metric_view(scope: Scope, resolution: Resolution) -> str:
    """Return the statement that makes the view of a scope at a resolution, from its macro."""
    rows = f"{_macro_name(scope)}({literal(resolution.name)}, {resolution.minutes})"
    made = f"CREATE OR REPLACE VIEW {view_name(scope, resolution)} AS"
    if resolution.minutes == 1:
        return f"{made} FROM {rows}"
    first = ", ".join([BUCKET, "entity_id", *map(quoted, scope.keys)])
    return f"{made} SELECT {first}, {passed(resolution)}, * EXCLUDE ({first}) FROM {rows}"


# Parameters of macros, whose names no metric has: theirs have no space.
_RESOLUTION: Final = quoted("own resolution")
_LENGTH: Final = quoted("own minutes")


def _macro_name(scope: Scope) -> str:
    return f"internal.{scope.view}_metrics"


def _macro(scope: Scope) -> str:
    return f"CREATE OR REPLACE MACRO {_macro_name(scope)}({_RESOLUTION}, {_LENGTH}) AS TABLE"


def _rows(scope: Scope) -> str:
    """Return the rows that a view merges: those of its resolution, and what is not rolled up yet.

    What calls a function with a parameter comes first: its type is not known yet when the macro is
    made, and so the rest of it is not bound either, which takes most of the time.
    """
    bucket = (
        f"CASE {_RESOLUTION} WHEN '{RESOLUTIONS[0].name}' THEN {BUCKET} "
        f"ELSE date_trunc({_RESOLUTION}, {BUCKET}) END"
    )
    added = f"SELECT * REPLACE ({bucket} AS {BUCKET}) FROM {states_table(scope)}"
    rolled = (
        f"FROM {rolled_table(scope, one)} WHERE {_RESOLUTION} = {literal(one.name)}"
        for one in RESOLUTIONS
    )
    return "\nUNION ALL\n".join([added, *rolled])


def passed(resolution: Resolution) -> str:
    """Return the column with the minutes of a bucket up to the end of the newest minute."""
    since = f"date_diff('minute', {BUCKET}, (SELECT max(minute) FROM internal.newest)) + 1"
    return f"greatest(least({since}, {resolution.minutes}), 1) AS {MINUTES}"


class _Values(NamedTuple):
    """The columns of three selections inside of each other, from the outer one in."""

    shown: list[str]
    bounded: list[str]
    aggregated: list[str]


class _Span(NamedTuple):
    """The time that a row is of, as SQL: its begin, its end, and the minutes of a rate."""

    begins: str
    ends: str
    minutes: str


def _values(
    metrics: Sequence[Metric],
    columns: Mapping[str, str],
    span: _Span,
    formers: Sequence[Former],
) -> _Values:
    merged = _Merged(columns)
    shown = []
    for metric in metrics:
        value = _finished(metric, merged, span.minutes)
        own = [one for one in formers if one.name == metric.name]
        befores = [
            "NULL" if one.metric is None else _finished(one.metric, merged, span.minutes)
            for one in own
        ]
        value = _of_its_time(value, own, befores, span)
        shown.append(f"({value})::{metric.function.sql_type} AS {quoted(metric.name)}")
    return _Values(shown, merged.bounded(), merged.aggregated())


def _of_its_time(value: str, formers: Sequence[Former], befores: Sequence[str], span: _Span) -> str:
    """Return the value by the meaning of its time; none where a span has two of them."""
    if not formers:
        return value
    cases = []
    for one, before in zip(formers, befores, strict=True):
        until = f"make_timestamp({one.until_us})"
        cases.append(f"WHEN {span.ends} <= {until} THEN {before} WHEN {span.begins} < {until} ")
        cases.append("THEN NULL ")
    return f"CASE {''.join(cases)}ELSE {value} END"


def between_macro(
    scope: Scope,
    metrics: Sequence[Metric],
    columns: Mapping[str, str],
    formers: Sequence[Former] = (),
) -> str:
    """Return the statement that makes the macro of a scope's metrics over a range of time.

    It has a row per entity, of what was from `since` to before `until`: whole days and hours from
    their tables, what is left at the ends from the minutes. `divide_by` stands for the minutes by
    which a rate is divided: with 1 it is a count.
    """
    keys = ", ".join(map(quoted, scope.keys))
    minutes = f"greatest(date_diff('minute', {_SINCE}, {_END}), 1)"
    values = _values(metrics, columns, _Span(_SINCE, _END, _DIVISOR), formers)
    inner = [keys, f"{minutes} AS {MINUTES}", f"coalesce(divide_by, {minutes}) AS {_DIVISOR}"]
    parts = "\nUNION ALL\n".join(_parts(scope))
    return (
        f"CREATE OR REPLACE MACRO {scope.view}_between(since, until, divide_by := NULL) AS TABLE\n"
        f"SELECT {_listed([f'{entity_id(scope)} AS entity_id', keys, MINUTES, *values.shown])}\n"
        f"FROM (\nSELECT {_listed([*inner, *values.bounded])}\n"
        # Numbers are grouped in half the time of names; a condition on these reaches the tables.
        f"FROM (\nSELECT {_listed([ENTITY, *values.aggregated])}\n"
        f"FROM (\n{parts}\n)\nGROUP BY ALL\n)\n"
        f"JOIN {entities_table(scope)} USING ({ENTITY})\n)"
    )


_SINCE: Final = "since::TIMESTAMP"
_UNTIL: Final = "until::TIMESTAMP"
_NEWEST: Final = "(SELECT max(minute) FROM internal.newest) + INTERVAL 1 MINUTE"
_END: Final = f"coalesce(least({_UNTIL}, {_NEWEST}), {_UNTIL})"
# No metric is called so, nor is a column of a metric's states.
_DIVISOR: Final = quoted("minutes of a rate")


def percentiles_macro(
    scope: Scope,
    metrics: Sequence[Metric],
    columns: Mapping[str, str],
    formers: Sequence[Former] = (),
) -> str:
    """Return the statement that makes the macro of one metric's percentiles over a range of time.

    `between_macro` has them, too, out of lists of buckets. Here buckets are added up as rows, which
    takes a fifth of the time or less; but a view that did so for all would read all, whatever is
    asked for. Of a scope without percentiles it has no rows.
    """
    own = percentiles_of(metrics)
    if not own:
        return empty_percentiles(scope)
    held = _of_metric(own, formers, lambda one: quoted(columns[one.states[0].name]))
    at = [
        f"min(key) FILTER (running >= {rank_of(str(p), 'total')}) AS at_p{p}" for p in PERCENTILES
    ]
    told = [f"{_of_metric(own, formers, partial(_told_of, p))} AS p{p}" for p in PERCENTILES]
    keys = ", ".join(map(quoted, scope.keys))
    parts = "\nUNION ALL\n".join(_parts(scope, f"{ENTITY}, {held} AS held"))
    asked_for = f"SELECT {ENTITY} FROM {entities_table(scope)} WHERE {_is_asked_for(scope)}"
    each = f"OVER (PARTITION BY {ENTITY}"
    sums = [
        f"(sum(logs) {each} ORDER BY key ROWS UNBOUNDED PRECEDING))::BIGINT AS running",
        f"(sum(logs) {each}))::BIGINT AS total",
    ]
    return (
        f"CREATE OR REPLACE MACRO {percentiles_head(scope)} AS TABLE\n"
        f"SELECT {entity_id(scope)} AS entity_id, {keys}, {', '.join(told)}\n"
        f"FROM (\nSELECT {_listed([ENTITY, *at])}\n"
        f"FROM (\nSELECT {_listed([ENTITY, 'key', *sums])}\n"
        f"FROM (\nSELECT {ENTITY}, held.key AS key, sum(held.value)::BIGINT AS logs\n"
        f"FROM (\nSELECT {ENTITY}, unnest(held) AS held\n"
        # The join below reaches the tables, too, but not in a query that joins this to another.
        f"FROM (\n{parts}\n)\nSEMI JOIN (\n{asked_for}\n) USING ({ENTITY})\n)\n"
        "GROUP BY ALL\n))\nGROUP BY ALL\n)\n"
        f"JOIN {entities_table(scope)} USING ({ENTITY})"
    )


def _is_asked_for(scope: Scope) -> str:
    """Return the condition that one end is a service, or in a namespace, where that is given."""
    services = [quoted(key) for key in scope.keys if key.endswith("service")]
    called = " OR ".join(f"{one} = of_service" for one in services)
    within = " OR ".join(f"ends_with({one}, '.' || of_namespace)" for one in services)
    return f"(of_service IS NULL OR {called}) AND (of_namespace IS NULL OR {within})"


def _of_metric(
    metrics: Sequence[Metric], formers: Sequence[Former], of_one: Callable[[Metric], str]
) -> str:
    """Return what there is of the metric that is asked for, by its meaning in the range."""
    cases = []
    for metric in metrics:
        own = [one for one in formers if one.name == metric.name]
        befores = ["NULL" if one.metric is None else of_one(one.metric) for one in own]
        value = _of_its_time(of_one(metric), own, befores, _Span(_SINCE, _END, ""))
        cases.append(f"WHEN {literal(metric.name)} THEN {value} ")
    unknown = "error('there are no such percentiles of this; FROM metrics lists all')"
    return f"CASE of_metric {''.join(cases)}ELSE {unknown} END"


def _told_of(percentile: int, metric: Metric) -> str:
    return told_of_bucket(metric, f"at_p{percentile}")


def _parts(scope: Scope, shown: str = "*") -> Iterator[str]:
    """Yield shares of the range; together they are all of it, each minute once.

    An hour that runs has its row, too: it is enough where the range goes on to the newest minute.
    """
    minutes, hours, days = (rolled_table(scope, one) for one in RESOLUTIONS)
    first_hour = _least(_next("hour", _SINCE), _UNTIL)
    last_hour = _greatest(f"date_trunc('hour', {_UNTIL})", first_hour)
    first_day = _least(_next("day", first_hour), last_hour)
    last_day = _greatest(f"date_trunc('day', {last_hour})", first_day)
    # A function of a parameter comes first, as in `_rows`.
    anywhere = f"{_greatest('since', 'since')}::TIMESTAMP"
    yield _part(shown, states_table(scope), anywhere, _UNTIL)
    yield _part(shown, days, first_day, last_day)
    yield _part(shown, hours, first_hour, first_day)
    yield _part(shown, hours, last_day, last_hour)
    yield _part(shown, minutes, _SINCE, first_hour)
    is_all = f"{_UNTIL} >= {_NEWEST}"
    yield f"{_part(shown, hours, last_hour, _UNTIL)} AND {is_all}"
    yield f"{_part(shown, minutes, last_hour, _UNTIL)} AND NOT coalesce({is_all}, false)"


def parts_of_range(
    scope: Scope, since_us: int, until_us: int, newest_us: int | None
) -> list[tuple[str, str]]:
    """Return the tables that the macros of ranges read for a range, each with its condition.

    Times are since 1970; `newest_us` is the newest minute that the store has. It is what `_parts`
    says, but for parts without any time.
    """
    minutes, hours, days = (rolled_table(scope, one) for one in RESOLUTIONS)
    hour_us, day_us = (one.minutes * _MINUTE_US for one in RESOLUTIONS[1:])
    first_hour = min(-(-since_us // hour_us) * hour_us, until_us)
    last_hour = max(until_us // hour_us * hour_us, first_hour)
    first_day = min(-(-first_hour // day_us) * day_us, last_hour)
    last_day = max(last_hour // day_us * day_us, first_day)
    is_all = newest_us is not None and until_us >= newest_us + _MINUTE_US
    parts = [
        (states_table(scope), since_us, until_us),
        (days, first_day, last_day),
        (hours, first_hour, first_day),
        (hours, last_day, last_hour),
        (minutes, since_us, first_hour),
        (hours if is_all else minutes, last_hour, until_us),
    ]
    return [
        (
            table,
            f"{BUCKET} >= make_timestamp({first_us}) AND {BUCKET} < make_timestamp({end_us})",
        )
        for table, first_us, end_us in parts
        if first_us < end_us
    ]


_MINUTE_US: Final = 60_000_000


def _part(shown: str, table: str, first: str, end: str) -> str:
    return f"SELECT {shown} FROM {table} WHERE {BUCKET} >= {first} AND {BUCKET} < {end}"


def _next(unit: str, time: str) -> str:
    """Return the expression for the first start of an hour or a day that is not before a time."""
    return f"date_trunc('{unit}', {time} + INTERVAL 1 {unit} - INTERVAL 1 MICROSECOND)"


def _least(one: str, other: str) -> str:
    return f"least({one}, {other})"


def _greatest(one: str, other: str) -> str:
    return f"greatest({one}, {other})"


def _listed(columns: Iterable[str]) -> str:
    return ",\n  ".join(columns)


class _Merged:
    """The merged states that the metrics of a view need, each with a name of its own.

    A metric's states are merged over the rows that hold all of them. Rows that were written
    with other definitions may hold some: a count without its sum would make a wrong average.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._names: dict[_Aggregate, str] = {}

    def of_metric(self, metric: Metric) -> list[str]:
        """Return the names of the merged states of a metric."""
        additive = [state for state in metric.states if state.keep not in _EXTREMES]
        columns = sorted({quoted(self._columns[state.name]) for state in additive})
        return [self._name(state, columns) for state in metric.states]

    def aggregated(self) -> list[str]:
        """Return the aggregations with their names."""
        return [f"{one.sql} AS {name}" for one, name in self._names.items()]

    def bounded(self) -> list[str]:
        """Return the merged states by name; sums stop at the ends of 64-bit numbers."""
        return [
            f"{one.bounded.format(name)} AS {name}" if one.bounded else name
            for one, name in self._names.items()
        ]

    def _name(self, state: State, needed: Sequence[str]) -> str:
        aggregate = _aggregate(state, quoted(self._columns[state.name]), needed)
        return self._names.setdefault(aggregate, f"merged_{len(self._names)}")


_EXTREMES: Final = {Keep.MAX: "max", Keep.MIN: "min"}
# least and greatest pass over NULL: without the condition no sum would be the smallest one.
_BOUNDED: Final = "internal.bounded({})"


def bounded_macro() -> str:
    """Return the statement that makes the function by which sums stop."""
    name = _BOUNDED.format("total")
    bounded = f"least(greatest(total, {-(2**63)}), {2**63 - 1})"
    return (
        f"CREATE OR REPLACE MACRO {name} AS "
        f"(CASE WHEN total IS NOT NULL THEN {bounded} END)::BIGINT"
    )


class _Aggregate(NamedTuple):
    """An aggregation of a column of states, and what brings a sum back to 64 bits, if it is one."""

    sql: str
    bounded: str = ""


def _aggregate(state: State, column: str, needed: Sequence[str]) -> _Aggregate:
    if state.keep in _EXTREMES:
        return _Aggregate(f"{_EXTREMES[state.keep]}({column})")
    # Aggregations pass over NULL. A FILTER would cost the square of their number: DuckDB keeps a
    # vector of every column for each of them.
    others = [f"{one} IS NOT NULL" for one in needed if one != column]
    held = f"CASE WHEN {' AND '.join(others)} THEN {column} END" if others else column
    if state.keyed:
        return _Aggregate(f"nullif(flatten(list({held})), [])")
    # No logs are so many that their count would have to stop.
    bounded = "{}::BIGINT" if state.keep is Keep.COUNT else _BOUNDED
    return _Aggregate(f"sum({held})", bounded)


def _finished(metric: Metric, merged: _Merged, minutes: str) -> str:
    states = merged.of_metric(metric)
    return metric.function.finish(states, minutes, metric.parameters)


def entity_id(scope: Scope) -> str:
    """Return the expression for an entity's identifier (analysis.md, section 7)."""
    names = [name for name in scope.keys if name != "derivation"]
    if scope.view == "service_relation":
        return f"{_service_id(names[0])} || '-' || {_service_id(names[1])}"
    if scope.view == "endpoint_relation":
        parts = [_service_id(name) if name.endswith("service") else _base64(name) for name in names]
        return " || '-' || ".join(parts)
    sides = [names[at : at + 2] for at in range(0, len(names), 2)]
    return " || '-' || ".join(_side_id(side) for side in sides)


def _side_id(names: Sequence[str]) -> str:
    service = _service_id(names[0])
    return service if len(names) == 1 else f"{service} || '_' || {_base64(names[1])}"


def _service_id(name: str) -> str:
    return f"{_base64(name)} || '.1'"


def _base64(name: str) -> str:
    return f"to_base64(encode({quoted(name)}))"


def entity_name(scope: Scope) -> str:
    """Return the expression for an entity's name as a person reads it."""
    names = [quoted(name) for name in scope.keys if name != "derivation"]
    if "source_service" not in scope.keys:
        return " || ' ' || ".join(names)
    half = len(names) // 2
    sides = [" || ' ' || ".join(side) for side in (names[:half], names[half:])]
    return " || ' -> ' || ".join(sides)


def metric_values_view() -> str:
    """Return the statement that makes the long form over all scopes and resolutions."""
    return f"CREATE OR REPLACE VIEW metric_values AS FROM {_VALUES_MACRO}(NULL)"


def empty_values_macro() -> str:
    """Return the statement that makes `metric_values_macro` without rows, as `empty_macro`."""
    return f"{_MADE_VALUES} {_NO_VALUES} LIMIT 0"


def metric_values_macro(metrics: Sequence[Metric]) -> str:
    """Return the statement that makes the macro that the long form is read from."""
    # As in `_rows`: a function of the parameter comes first.
    selects = [f"{_NO_VALUES} WHERE greatest({_NOTHING}, {_NOTHING}) IS NOT NULL"]
    for scope in SCOPES.values():
        own = [(one.name, one.function.sql_type) for one in metrics if one.scope is scope]
        if own:
            rows = {
                one.name: f"* FROM {view_name(scope, one)}"
                if one.minutes == 1
                else f"* EXCLUDE ({MINUTES}) FROM {view_name(scope, one)}"
                for one in RESOLUTIONS
            }
            selects.append(_values_of_scope(scope, own, rows))
    return f"{_MADE_VALUES}\n{_all_values(selects)}"


def values_selection(parts: Iterable[tuple[Scope, Typed, Mapping[str, str]]]) -> str:
    """Return what the long form has of some metrics.

    They come by scope: with their types, and SQL of rows that have them, by resolution.
    """
    selects = [_NO_VALUES]
    for scope, metrics, rows in parts:
        selected = {name: f"* FROM ({sql})" for name, sql in rows.items()}
        selects.append(_values_of_scope(scope, metrics, selected))
    return _all_values(selects)


def _values_of_scope(scope: Scope, metrics: Typed, rows: Mapping[str, str]) -> str:
    names = list(map(literal, rows))
    names[0] += f" AS {_OWN_RESOLUTION}"
    selects = map("SELECT {}, {}".format, names, rows.values())
    every = " UNION ALL ".join(selects)
    return (
        f"SELECT {BUCKET}, {_OWN_RESOLUTION} AS resolution, {literal(scope.name)} AS scope, "
        f"entity_id, {entity_name(scope)} AS entity, "
        f"unnest({_labelled_values(metrics)}, recursive := true) "
        f"FROM ({every})"
    )


def _all_values(selects: Iterable[str]) -> str:
    every = "\nUNION ALL\n".join(selects)
    return f"FROM (\n{every}\n) WHERE value IS NOT NULL"


# These stand beside the columns of metrics, whose names have no space: `e` could be one of them.
_OWN_RESOLUTION: Final = quoted("own resolution")
_OWN_ENTRY: Final = quoted("own entry")
_NOTHING: Final = quoted("own nothing")
_VALUES_MACRO: Final = "internal.metric_values_of"
_MADE_VALUES: Final = f"CREATE OR REPLACE MACRO {_VALUES_MACRO}({_NOTHING}) AS TABLE"
_NO_VALUES: Final = (
    f"SELECT NULL::TIMESTAMP AS {BUCKET}, '' AS resolution, '' AS scope, '' AS entity_id, "
    "'' AS entity, '' AS metric, '' AS label, NULL::DOUBLE AS value"
)


def _labelled_values(metrics: Typed) -> str:
    """Return a list of {metric, label, value}; a plain value has the empty label."""
    plain = [name for name, sql_type in metrics if sql_type in _PLAIN]
    names = ", ".join(map(literal, plain))
    values = ", ".join(map(quoted, plain))
    # One expression for all: a struct for each takes three times as long to read and bind.
    pairs = f"list_zip([{names}]::VARCHAR[], [{values}]::DOUBLE[])"
    entry = f"{{'metric': {_OWN_ENTRY}[1], 'label': '', 'value': {_OWN_ENTRY}[2]}}"
    lists = [f"list_transform({pairs}, lambda {_OWN_ENTRY}: {entry})"]
    lists += [_values_of(*one) for one in metrics if one[1] not in _PLAIN]
    return f"flatten([{', '.join(lists)}])"


_PLAIN: Final = frozenset({"BIGINT", "DOUBLE"})


def _values_of(name: str, sql_type: str) -> str:
    column = quoted(name)
    if sql_type.startswith("STRUCT"):
        entries = (_entry(name, f"'p{p}'", f"{column}.p{p}") for p in PERCENTILES)
        return f"[{', '.join(entries)}]"
    entry = _entry(name, f"{_OWN_ENTRY}.key::VARCHAR", f"{_OWN_ENTRY}.value")
    labelled = f"list_transform(map_entries({column}), lambda {_OWN_ENTRY}: {entry})"
    return f"coalesce({labelled}, [])"


def _entry(name: str, label: str, value: str) -> str:
    return f"{{'metric': {literal(name)}, 'label': {label}, 'value': {value}::DOUBLE}}"
