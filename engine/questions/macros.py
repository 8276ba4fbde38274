"""Macros of a store that answer the shipped questions, for whoever opens its file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from framewalk.engine.oal import PERCENTILES, SCOPES
from framewalk.engine.questions.places import filled
from framewalk.engine.questions.shipped import shipped_questions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from framewalk.engine.oal import Metric, Scope
    from framewalk.engine.questions.shipped import Question

_RANGE: Final = ("since", "until")
# Names of metrics, as far as questions name some.
_METRIC: Final = re.compile(r"\bkubernetes_\w+")


def asked_macros(metrics: Sequence[Metric]) -> Iterator[str]:
    """Yield the statements that make a macro of each question, or a view where it asks for nothing.

    Without those that name a metric which is not there. DuckDB binds a macro when it is made, with
    the macros in it: the macros of ranges are made empty here, and are to be made afterwards.
    """
    known = {metric.name: metric for metric in metrics}
    questions = answered(metrics)
    used = {name: known[name] for question in questions for name in _named(question)}
    for scope in SCOPES.values():
        yield _empty_between(scope, used)
        yield empty_percentiles(scope)
    for question in questions:
        yield _macro(question) if question.places else _view(question)
    yield from _metric_values_of(metrics)


def answered(metrics: Sequence[Metric]) -> list[Question]:
    """Return the shipped questions that a store with these metrics answers by itself."""
    known = {metric.name for metric in metrics}
    return [
        question
        for question in shipped_questions().values()
        if _named(question) <= known and not question.is_of_archive
    ]


def _named(question: Question) -> set[str]:
    return set(_METRIC.findall(question.query))


def _empty_between(scope: Scope, metrics: Mapping[str, Metric]) -> str:
    columns = [("entity_id", "VARCHAR"), *((name, "VARCHAR") for name in scope.keys)]
    columns.append(("minutes", "BIGINT"))
    columns += [
        (name, one.function.sql_type) for name, one in metrics.items() if one.scope is scope
    ]
    nulls = ", ".join(f'NULL::{sql_type} AS "{name}"' for name, sql_type in columns)
    return (
        f"CREATE OR REPLACE MACRO {scope.view}_between(since, until, divide_by := NULL) AS TABLE "
        f"SELECT {nulls} LIMIT 0"
    )


def percentiles_of(metrics: Iterable[Metric]) -> list[Metric]:
    """Return those of metrics that are percentiles: structs of five."""
    return [one for one in metrics if one.function.sql_type.startswith("STRUCT")]


def percentiles_name(scope: Scope) -> str:
    """Return the name of the macro of one metric's percentiles over a range of time."""
    return f"{scope.view}_percentiles_between"


def percentiles_head(scope: Scope) -> str:
    """Return the macro with its parameters."""
    optional = "of_service := NULL, of_namespace := NULL"
    return f"{percentiles_name(scope)}(since, until, of_metric, {optional})"


def empty_percentiles(scope: Scope) -> str:
    """Return the statement that makes the macro of percentiles for a scope that has none."""
    names = ", ".join(f"NULL::VARCHAR AS {name}" for name in ("entity_id", *scope.keys))
    values = ", ".join(f"NULL::BIGINT AS p{p}" for p in PERCENTILES)
    return (
        f"CREATE OR REPLACE MACRO {percentiles_head(scope)} AS TABLE "
        f"SELECT {names}, {values} LIMIT 0"
    )


def _view(question: Question) -> str:
    return f"CREATE OR REPLACE VIEW {question.name} AS\n{question.query}"


def _macro(question: Question) -> str:
    """Name what a place stands for `of_...`: a macro's parameters hide columns of their name."""
    names = {place: place if place in _RANGE else f"of_{place}" for place in question.places}
    wanted = [place for place in names if place in _RANGE or place in question.needed]
    # From when comes before until when, whichever the text names first.
    first, second = sorted(map(wanted.index, _RANGE))
    wanted[first], wanted[second] = _RANGE
    others = [f"{names[place]} := NULL" for place in names if place not in wanted]
    parameters = ", ".join([*(names[place] for place in wanted), *others])
    query = filled(question.query, names)
    return f"CREATE OR REPLACE MACRO {question.name}({parameters}) AS TABLE\n{query}"


def _in(names: Sequence[str]) -> str:
    return f"IN ({', '.join(repr(name) for name in names)})"


_NAMES: Final = ("service", "instance", "endpoint")
_SOURCE: Final = _in([*_NAMES, *(f"source_{name}" for name in _NAMES)])
_DEST: Final = _in([f"dest_{name}" for name in _NAMES])
_VIEW: Final = "internal.view_of_metric(of_metric)"
# What is named decides which view is read, and must name nothing else.
_NAMED_VIEW: Final = (
    f"CASE WHEN {_VIEW} IS NULL THEN error('there is no such metric; FROM metrics lists all') "
    f"WHEN resolution IN ('minute', 'hour', 'day') THEN {_VIEW} || '_' || resolution "
    "ELSE error('resolution is minute, hour or day') END"
)
_IS_RELATION: Final = f"{_VIEW} LIKE '%relation'"
_LABELLED: Final = (
    "CASE json_type(content) WHEN 'OBJECT' THEN list_transform(json_keys(content), "
    "lambda label: {'label': label, 'value': "
    "json_extract_string(content, '$.\"' || label || '\"')::DOUBLE}) "
    "ELSE [{'label': '', 'value': content::DOUBLE}] END"
)


def _metric_values_of(metrics: Sequence[Metric]) -> Iterator[str]:
    """Yield the statements for what `metric_values` has of one metric; only its view is read."""
    views = " ".join(
        f"WHEN metric {_in(names)} THEN '{scope.view}'"
        for scope in SCOPES.values()
        if (names := [metric.name for metric in metrics if metric.scope is scope])
    )
    view = f"CASE {views} END" if views else "NULL"
    yield f"CREATE OR REPLACE MACRO internal.view_of_metric(metric) AS {view}"
    caller = f"concat_ws(' ', *COLUMNS(lambda name: name {_SOURCE}))"
    # Where there is no other end, something that every view has: no list may be empty.
    called = (
        f"concat_ws(' ', *COLUMNS(lambda name: CASE WHEN {_IS_RELATION} THEN name {_DEST} "
        "ELSE name = 'entity_id' END))"
    )
    called_too = f"CASE WHEN {_IS_RELATION} THEN ' -> ' || called ELSE '' END"
    yield (
        "CREATE OR REPLACE MACRO metric_values_of(of_metric, since, until, of_entity := NULL, "
        "resolution := 'minute') AS TABLE\n"
        "SELECT time_bucket, entity_id, entity, label, value FROM (\n"
        f"SELECT time_bucket, entity_id, caller || {called_too} AS entity, "
        f"unnest({_LABELLED}, recursive := true) FROM (\n"
        f"SELECT time_bucket, entity_id, {caller} AS caller, {called} AS called, "
        "to_json(COLUMNS(lambda name: name = of_metric)) AS content\n"
        f"FROM query_table({_NAMED_VIEW})\n"
        "WHERE time_bucket >= since::TIMESTAMP AND time_bucket < until::TIMESTAMP\n"
        f") WHERE of_entity IS NULL OR caller || {called_too} = of_entity\n"
        ") WHERE value IS NOT NULL"
    )
