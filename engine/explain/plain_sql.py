"""A metric as one plain DuckDB SELECT over the logs (analysis.md, sections 3 and 4).

For a person to read, and for the tests to compare with: it goes from the definition to the
value in one pass, without states and phases, and has nothing but the catalogue of scopes and
the parameters of functions in common with how the engine computes.

The tables are the log frames as `resolve` returns them, one for each operation (`logs_table`)
and with all derived columns, and `peers`, which has the columns of `with_sides` and the row
number as `peer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from framewalk.engine.latency_buckets import (
    SHORTEST_NS,
    STARTS_NS,
    start_ns_sql,
    told_ns_sql,
)
from framewalk.engine.oal import (
    DEFAULT_LABELS,
    PERCENTILES,
    Cast,
    Column,
    Condition,
    EnumValue,
    Kind,
    Null,
    Operand,
    Operator,
    Source,
    Star,
    ValueType,
)
from framewalk.engine.schemas import COMPONENT_IDS, DEFAULT_APDEX_THRESHOLD_MS, ROLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from framewalk.engine.oal import Literal, Metric, Scalar, Scope

_NS_PER_MINUTE: Final = "60_000_000_000"
_OF_STRING: Final = frozenset({Cast.STRING_TO_LONG, Cast.STRING_TO_INT})


def logs_table(operation: str) -> str:
    """Return the name of the table of an operation's logs."""
    return f"logs_{operation}"


@dataclass(frozen=True, slots=True)
class _Thresholds:
    """Apdex thresholds in ms: of services by name, and of all others."""

    of_service_ms: Mapping[str, int]
    default_ms: int


def metric_sql(
    metric: Metric,
    minutes: int = 1,
    apdex_thresholds_ms: Mapping[str, int] | None = None,
    apdex_default_ms: int = DEFAULT_APDEX_THRESHOLD_MS,
) -> str:
    """Return a query for every value of a metric.

    Its columns are `minute` (TIMESTAMP, the UTC start of a bucket of this many minutes: 1, 60
    or 1440), the names of the entity, and the value under the metric's name.
    """
    thresholds = _Thresholds(apdex_thresholds_ms or {}, apdex_default_ms)
    selects = [
        _select_logs(metric, operation, minutes, thresholds)
        for operation in metric.scope.operations
    ]
    logs = "\nUNION ALL\n".join(select for select in selects if select)
    steps, last, value = _FUNCTIONS[metric.function.name](metric, minutes)
    steps = {"logs": logs} | steps
    with_steps = ",\n".join(f"{name} AS (\n{_indented(step)}\n)" for name, step in steps.items())
    columns = [*_entity(metric.scope), f"{value} AS {_quoted(metric.name)}"]
    return f"WITH {with_steps}\n{_select(columns, last)}\nGROUP BY ALL"


def _select(columns: Iterable[str], source: str, conditions: Sequence[str] = ()) -> str:
    lines = ["SELECT", _indented(",\n".join(columns)), f"FROM {source}"]
    if conditions:
        lines.append("WHERE " + "\n  AND ".join(conditions))
    return "\n".join(lines)


def _indented(text: str) -> str:
    return "  " + text.replace("\n", "\n  ")


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _literal(value: Scalar) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()


def _entity(scope: Scope) -> list[str]:
    return ["minute", *scope.keys]


# Which logs count, and what the function needs of each.


def _select_logs(metric: Metric, operation: str, minutes: int, thresholds: _Thresholds) -> str:
    """Return a select of the logs of one operation, or nothing if none of them can count."""
    scope = metric.scope
    filters = [_condition(scope, operation, each) for each in metric.definition.filters]
    inputs = _inputs(metric, operation, thresholds)
    if inputs is None or _NEVER in filters:
        return ""
    columns = {"minute": _bucket(minutes)}
    columns |= {name: _held(key) for name, key in scope.keys.items()} | inputs
    conditions = [
        *_conditions_of_scope(scope),
        *(condition for condition in filters if condition != _ALWAYS),
        *_conditions_of_nulls(metric, operation),
    ]
    selected = [name if sql == name else f"{sql} AS {name}" for name, sql in columns.items()]
    return _select(selected, f"{logs_table(operation)} JOIN peers USING (peer)", conditions)


def _bucket(minutes: int) -> str:
    if minutes == 1:
        return f"make_timestamp(time_ns // {_NS_PER_MINUTE} * 60_000_000)"
    return f"make_timestamp(time_ns // ({minutes} * {_NS_PER_MINUTE}) * {minutes} * 60_000_000)"


def _conditions_of_scope(scope: Scope) -> list[str]:
    conditions = []
    if set(scope.roles) != set(ROLES):
        conditions.append(f"role IN ({', '.join(map(_literal, scope.roles))})")
    if scope.needs_local:
        conditions.append("local_known")
    return conditions + [f"{column} IS NOT NULL" for column in scope.needs]


def _conditions_of_nulls(metric: Metric, operation: str) -> list[str]:
    """Return what keeps logs out that have no value, or a text which is not the number needed."""
    return [
        f"{_value(metric.scope, operation, operand)} IS NOT NULL"
        for operand in _function_operands(metric)
        if operand.cast in _OF_STRING or _is_nullable(metric.scope, operation, operand)
    ]


def _is_nullable(scope: Scope, operation: str, operand: Operand) -> bool:
    column = scope.attributes[str(operand.attribute)].columns.get(operation)
    return isinstance(column, Column) and column.nullable


def _function_operands(metric: Metric) -> list[Operand]:
    """Return the attributes that the function works on, the one in `from` included."""
    source, arguments = _source(metric), metric.definition.function.arguments
    operands = [argument for argument in arguments if isinstance(argument, Operand)]
    return operands if source is None else [source, *operands]


def _source(metric: Metric) -> Operand | None:
    """Return the attribute in `from`, None for `*`."""
    source = metric.definition.source
    return None if isinstance(source.attribute, Star) else Operand(source.cast, source.attribute)


def _inputs(metric: Metric, operation: str, thresholds: _Thresholds) -> dict[str, str] | None:
    """Return what the function needs of a log by name; None where logs do not have it all."""
    scope, function, source = metric.scope, metric.function, _source(metric)
    of_source = None if source is None else _value(scope, operation, source)
    if source is not None and of_source is None:
        return None
    inputs: dict[str, str | None] = {}
    if function.source is not Source.ANY:
        inputs["value"] = of_source
    arguments = metric.definition.function.arguments
    for parameter, argument in zip(function.parameters, arguments, strict=False):
        if isinstance(argument, Condition):
            inputs[parameter.name] = _condition(scope, operation, argument)
        elif isinstance(argument, Operand) and parameter.kind is Kind.SERVICE_NAME:
            inputs["threshold_ms"] = _threshold(_value(scope, operation, argument), thresholds)
        elif isinstance(argument, Operand):
            inputs[parameter.name] = _value(scope, operation, argument)
    known = {name: sql for name, sql in inputs.items() if sql is not None}
    return known if len(known) == len(inputs) else None


def _threshold(service: str | None, thresholds: _Thresholds) -> str:
    whens = " ".join(
        f"WHEN {_literal(name)} THEN {limit_ms}"
        for name, limit_ms in thresholds.of_service_ms.items()
    )
    default = str(thresholds.default_ms)
    return f"CASE {service} {whens} ELSE {default} END" if whens else default


# Attributes, conversions and conditions.

_ALWAYS: Final = "true"
_NEVER: Final = "false"


def _held(held: Column | str) -> str:
    return held.name if isinstance(held, Column) else _literal(held)


def _value(scope: Scope, operation: str, operand: Operand) -> str | None:
    """Return an attribute of an operation's logs; None where they do not have it."""
    held = scope.attributes[str(operand.attribute)].columns.get(operation)
    return None if held is None else _converted(_held(held), operand.cast)


def _converted(value: str, cast: Cast | None) -> str:
    """Return a converted value: NULL for a text that is not a whole number of 64 bits."""
    if cast in _OF_STRING:
        value = f"TRY_CAST(regexp_extract({value}, '^[+-]?[0-9]+$') AS BIGINT)"
    if cast in {Cast.STRING_TO_INT, Cast.INT}:
        # As (int) of Java does: the low 32 bits, the topmost of them being the sign.
        return f"((({value}::HUGEINT + {2**31}) & {2**32 - 1}) - {2**31})::BIGINT"
    return value


def _condition(scope: Scope, operation: str, condition: Condition) -> str:
    """Return a condition on the logs of an operation."""
    attribute = scope.attributes[str(condition.attribute)]
    held = attribute.columns.get(operation)
    operand = _operands(condition.value)
    if not isinstance(held, Column):
        # No constant of the catalogue is a number, so a conversion finds none.
        constant = None if condition.cast else held
        return _ALWAYS if _constant_meets(constant, condition.operator, operand) else _NEVER
    if attribute.type is ValueType.COMPONENTS:
        return _components_meet(held.name, condition.operator, operand)
    return _compared(_converted(held.name, condition.cast), condition.operator, operand)


def _operands(
    value: Literal | EnumValue | tuple[Literal | EnumValue, ...],
) -> Scalar | tuple[Scalar, ...]:
    if isinstance(value, tuple):
        return tuple(_operand(each) for each in value)
    return _operand(value)


def _operand(value: Literal | EnumValue) -> Scalar:
    if isinstance(value, Null):
        return None
    return value.member if isinstance(value, EnumValue) else value.value


def _constant_meets(
    constant: str | None, operator: Operator, operand: Scalar | tuple[Scalar, ...]
) -> bool:
    """Compare an attribute that all logs of an operation have alike, or that none of them has."""
    if operator is Operator.EQUAL:
        return constant == operand
    if operator is Operator.NOT_EQUAL:
        return constant != operand
    if constant is None:
        return operator is Operator.NOT_CONTAIN
    if isinstance(operand, tuple):
        return constant in operand
    ends_open, text, starts_open = _pattern(str(operand))
    if ends_open and starts_open:
        return text in constant
    return constant.endswith(text) if ends_open else constant.startswith(text)


def _pattern(pattern: str) -> tuple[bool, str, bool]:
    """Return the text of a `like` and whether a % stands before and after it."""
    text = pattern.removeprefix("%").removesuffix("%")
    return pattern.startswith("%"), text, pattern.endswith("%")


def _components_meet(bits: str, operator: Operator, component: Scalar | tuple[Scalar, ...]) -> str:
    """Return a condition on component ids, which are a set of bits."""
    contains = operator is Operator.CONTAIN
    if component not in COMPONENT_IDS:
        return _NEVER if contains else _ALWAYS
    bit = 2 ** COMPONENT_IDS.index(component)
    return f"({bits} & {bit}) {'<>' if contains else '='} 0"


def _compared(value: str, operator: Operator, operand: Scalar | tuple[Scalar, ...]) -> str:
    """Return a comparison; a missing value is unequal to all but null."""
    if isinstance(operand, tuple):
        return f"{value} IN ({', '.join(map(_literal, operand))})"
    if operand is None:
        return f"{value} IS NULL" if operator is Operator.EQUAL else f"{value} IS NOT NULL"
    if operator is Operator.LIKE:
        ends_open, text, starts_open = _pattern(str(operand))
        if ends_open and starts_open:
            return f"contains({value}, {_literal(text)})"
        return f"{'ends_with' if ends_open else 'starts_with'}({value}, {_literal(text)})"
    return f"{value} {_COMPARISONS[operator]} {_literal(operand)}"


_COMPARISONS: Final = MappingProxyType(
    {
        Operator.EQUAL: "=",
        Operator.NOT_EQUAL: "IS DISTINCT FROM",
        Operator.GREATER: ">",
        Operator.LESS: "<",
        Operator.GREATER_EQUAL: ">=",
        Operator.LESS_EQUAL: "<=",
    }
)


# Functions: further steps after `logs`, the step that the value is computed of, the value.

_Aggregation = tuple[dict[str, str], str, str]


def _plain(value: str) -> Callable[[Metric, int], _Aggregation]:
    """Return a function whose value is an aggregate of the logs."""
    return lambda _metric, _minutes: ({}, "logs", value)


def _total(metric: Metric) -> str:
    """Return the sum of the values, which stays at the ends of the 64-bit range."""
    total = f"least(sum(value), {2**63 - 1})"
    casts = {operand.cast for operand in _function_operands(metric)}
    return f"greatest({total}, {-(2**63)})" if Cast.STRING_TO_LONG in casts else total


def _of_total(value: str) -> Callable[[Metric, int], _Aggregation]:
    """Return a function whose value is made of the sum of the logs' values."""
    return lambda metric, _minutes: ({}, "logs", value.format(total=_total(metric)))


def _cpm(_metric: Metric, minutes: int) -> _Aggregation:
    return {}, "logs", "count(*)" if minutes == 1 else f"count(*) // {minutes}"


def _apdex(_metric: Metric, _minutes: int) -> _Aggregation:
    satisfied = "success AND value <= threshold_ms"
    tolerated = "success AND value > threshold_ms\n      AND value <= 4 * threshold_ms::BIGINT"
    value = (
        f"(\n  count(*) FILTER ({satisfied}) * 10000"
        f"\n  + count(*) FILTER ({tolerated}) * 5000\n) // count(*)"
    )
    return {}, "logs", value


def _percentile(metric: Metric, _minutes: int) -> _Aggregation:
    precision = metric.parameters[0]
    entity = _entity(metric.scope)
    columns = [*entity, f"value // {precision} AS bucket", "count(*) AS bucket_logs"]
    buckets = f"{_select(columns, 'logs')}\nGROUP BY ALL"
    sums = [
        "*",
        "sum(bucket_logs) OVER (entity ORDER BY bucket) AS running",
        "sum(bucket_logs) OVER entity AS total",
    ]
    window = f"WINDOW entity AS (PARTITION BY {', '.join(entity)})"
    values = ",\n".join(
        f"'p{p}': min(bucket) FILTER (running >= (total * {p} + 50) // 100) * {precision}"
        for p in PERCENTILES
    )
    steps = {"buckets": buckets, "ranks": f"{_select(sums, 'buckets')}\n{window}"}
    return steps, "ranks", f"{{\n{_indented(values)}\n}}::{metric.function.sql_type}"


def _relative_percentile(metric: Metric, _minutes: int) -> _Aggregation:
    """Take the value at each rank, then the start of its bucket."""
    ranks = (f"list_sort(list(value))[(count(*) * {p} + 50) // 100] AS p{p}" for p in PERCENTILES)
    starts = f"list({start_ns_sql('bucket')}) AS starts_ns"
    steps = {
        "ranks": f"{_select([*_entity(metric.scope), *ranks], 'logs')}\nGROUP BY ALL",
        "buckets": _select([starts], f"range({len(STARTS_NS)}) AS numbers(bucket)"),
    }
    reached = f"list_max([one for one in starts_ns if one <= greatest({{}}, {SHORTEST_NS})])"
    values = ",\n".join(
        f"'p{p}': any_value({told_ns_sql(reached.format(f'p{p}'))})" for p in PERCENTILES
    )
    value = f"{{\n{_indented(values)}\n}}::{metric.function.sql_type}"
    return steps, "ranks CROSS JOIN buckets", value


def _histogram(metric: Metric, _minutes: int) -> _Aggregation:
    step, last = metric.parameters
    bucket = f"least(greatest(value, 0) // {step}, {last})"
    entry = f"row(i * {step}, coalesce(histogram({bucket})[i], 0))"
    return {}, "logs", _map(metric, f"[{entry}\nfor i in range({last + 1})]")


def _labels(metric: Metric, value: str, *further: str) -> _Aggregation:
    """Return a map of the labels that have the most logs; of equals, the first by name."""
    entity = _entity(metric.scope)
    most = metric.parameters[0] if metric.parameters else DEFAULT_LABELS
    columns = [*entity, "label", "count(*) AS label_logs", *further]
    window = f"PARTITION BY {', '.join(entity)}\n  ORDER BY count(*) DESC, label"
    labels = (
        f"{_select(columns, 'logs')}\n"
        f"GROUP BY {', '.join([*entity, 'label'])}\n"
        f"QUALIFY row_number() OVER (\n  {window}\n) <= {most}"
    )
    entries = f"list(row(\n  label,\n  {value}\n))"
    return {"labels": labels}, "labels", _map(metric, entries)


def _map(metric: Metric, entries: str) -> str:
    return f"map_from_entries(\n{_indented(entries)}\n)::{metric.function.sql_type}"


def _label_count(metric: Metric, _minutes: int) -> _Aggregation:
    return _labels(metric, "label_logs")


def _label_avg(metric: Metric, _minutes: int) -> _Aggregation:
    average = "label_total // label_logs"
    value = f"CASE WHEN {average} = 0 AND label_total <> 0 THEN 1\n  ELSE {average} END"
    return _labels(metric, value, f"{_total(metric)} AS label_total")


_FUNCTIONS: Final[Mapping[str, Callable[[Metric, int], _Aggregation]]] = MappingProxyType(
    {
        "longAvg": _of_total("({total} // count(*))::BIGINT"),
        "doubleAvg": _of_total("{total}::DOUBLE / count(*)"),
        "sum": _of_total("{total}::BIGINT"),
        "max": _plain("max(value)::BIGINT"),
        "min": _plain("min(value)::BIGINT"),
        "maxDouble": _plain("max(value)::DOUBLE"),
        "minDouble": _plain("min(value)::DOUBLE"),
        "count": _plain("count(*)"),
        "cpm": _cpm,
        "percent": _plain("count(*) FILTER (condition) * 10000 // count(*)"),
        "rate": _plain(
            "count(*) FILTER (numerator) * 10000\n// nullif(count(*) FILTER (denominator), 0)"
        ),
        "apdex": _apdex,
        "percentile2": _percentile,
        "relativePercentile": _relative_percentile,
        "histogram": _histogram,
        "labelCount": _label_count,
        "labelAvg": _label_avg,
    }
)
