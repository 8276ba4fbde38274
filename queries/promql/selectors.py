"""What a selector means in a store: which metrics, and conditions on the names of entities.

Regular expressions are DuckDB's (RE2): they take time in proportion to the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import duckdb
from promql_parser import MatchOp

from framewalk.engine.oal import SCOPES
from framewalk.engine.views import literal, quoted
from framewalk.queries.metrics import (
    ENDPOINT,
    ENDPOINT_RELATION,
    INSTANCE,
    INSTANCE_RELATION,
    SERVICE,
    SERVICE_RELATION,
    entities_of,
)
from framewalk.queries.promql.series import NAME, PromqlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from promql_parser import VectorSelector

    from framewalk.queries.metrics import Catalogue, Metric
    from framewalk.queries.promql.series import Notes

# As Prometheus has it: a point is any character, and the whole text has to match.
FULL_MATCH: Final = "regexp_full_match({}, ?, 's')"
_GROUP: Final = re.compile(r"\$(?:(\$)|(\d)|\{(\d)\}|(\{?\w+\}?)?)")


@dataclass(slots=True)
class Regexes:
    """Matches texts, by a cursor."""

    cursor: duckdb.DuckDBPyConnection
    _found: dict[tuple[str, str], bool] = field(default_factory=dict)

    def matching(self, pattern: str, texts: Iterable[str]) -> set[str]:
        """Return the texts that match as a whole. Raises PromqlError at a bad pattern."""
        wanted = list(dict.fromkeys(texts))
        new = [text for text in wanted if (pattern, text) not in self._found]
        if new:
            matches = self._rows(
                f"SELECT {FULL_MATCH.format('text')} FROM (SELECT unnest(?) AS text)",
                [pattern, new],
                pattern,
            )
            for text, (match,) in zip(new, matches, strict=True):
                self._found[pattern, text] = bool(match)
        return {text for text in wanted if self._found[pattern, text]}

    def replaced(self, pattern: str, replacement: str, texts: Sequence[str]) -> Mapping[str, str]:
        """Return what becomes of the texts that match as a whole; `$1` is a group of it."""
        groups = sorted({int(number) for number in _groups(replacement)})
        whole = f"^(?s:{pattern})$"
        shown = "".join(f", regexp_extract(text, ?, {number})" for number in groups)
        rows = self._rows(
            f"SELECT text, {FULL_MATCH.format('text')}{shown} FROM (SELECT unnest(?) AS text)",
            [pattern, *[whole] * len(groups), list(dict.fromkeys(texts))],
            pattern,
        )
        return {
            text: _filled(replacement, dict(zip(groups, values, strict=True)))
            for text, match, *values in rows
            if match
        }

    def _rows(self, sql: str, parameters: list[object], pattern: str) -> list[tuple[Any, ...]]:
        try:
            return self.cursor.execute(sql, parameters).fetchall()
        except duckdb.InvalidInputException as error:
            raise bad_pattern(error, pattern) from error


def bad_pattern(error: duckdb.Error, pattern: str = "") -> PromqlError:
    """Return what to say of a regular expression that DuckDB cannot read."""
    reason = str(error).splitlines()[0].removeprefix("Invalid Input Error: ")
    named = f" {pattern!r}" if pattern else ""
    return PromqlError(f"the regular expression{named} cannot be used: {reason}")


def _groups(replacement: str) -> Iterable[str]:
    for found in _GROUP.finditer(replacement):
        dollar, plain, braced, name = found.groups()
        if name:
            problem = f"label_replace knows no group {name!r}"
            raise PromqlError(problem, "number the groups: $1 or ${1}")
        number = plain or braced
        if number and not dollar:
            yield number


def _filled(replacement: str, groups: Mapping[int, object]) -> str:
    def fill(found: re.Match[str]) -> str:
        if found[1]:
            return "$"
        number = found[2] or found[3]
        return str(groups[int(number)]) if number else found[0]

    return _GROUP.sub(fill, replacement)


LAYER: Final = "K8S_SERVICE"
PERCENTILE: Final = "p"
# OAP's own: they choose how a query is answered, and are labels of nothing.
TOP_N: Final = "top_n"
ORDER: Final = "order"
PARENT: Final = "parent_service"
SPECIAL: Final = (TOP_N, ORDER, PARENT)
# Its older ones, which say nothing that we go by.
_PASSED_OVER: Final = ("labels", "relabels")

_SHORT: Final = r"regexp_extract({}, '^(?s:.*::)?((?s:.*))$', 1)"
_CLUSTER: Final = r"regexp_extract({}, '^((?s:.*))::', 1)"
_SERVICE_LABELS: Final = {
    "service": "{}",
    "cluster": _CLUSTER,
    "namespace": rf"regexp_extract({_SHORT}, '\.([^.]*)$', 1)",
    "service_short": rf"regexp_replace({_SHORT}, '\.[^.]*$', '')",
}


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on a label."""

    name: str
    op: str
    value: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What a selector chooses of one scope.

    `condition` is SQL over the columns of the scope's names, with `parameters`. `percentiles` are
    the parts of percentiles that are wanted, `on_maps` what a label of a map must match.
    """

    scope: str
    metrics: tuple[Metric, ...]
    condition: str
    parameters: tuple[str, ...]
    percentiles: tuple[str, ...] = ()
    on_maps: tuple[Matcher, ...] = ()


@dataclass(frozen=True, slots=True)
class ScopeLabels:
    """The labels of the entities of a scope: constant ones, and columns of names as SQL.

    `keys` are the columns that name an entity, in the order of the store.
    """

    scope: str
    keys: tuple[str, ...]
    constants: Mapping[str, str]
    columns: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """All labels, but for the metric's name and those of labelled metrics."""
        return [*self.constants, *self.columns]


def _scope_labels(view: str, shown: str, own: Mapping[str, str]) -> ScopeLabels:
    keys = tuple(next(scope.keys for scope in SCOPES.values() if scope.view == view))
    is_relation = "source_service" in keys
    constants = {"layer": LAYER, "scope": shown}
    columns = _of_service("", "source_service" if is_relation else "service")
    if is_relation:
        constants["dest_layer"] = LAYER
        columns |= _of_service("dest_", "dest_service")
    columns |= {name: quoted(key) for name, key in own.items()}
    return ScopeLabels(view, keys, constants, columns)


def _of_service(prefix: str, key: str) -> dict[str, str]:
    return {prefix + name: sql.format(quoted(key)) for name, sql in _SERVICE_LABELS.items()}


LABELS: Final = {
    one.scope: one
    for one in (
        _scope_labels(SERVICE, "Service", {}),
        _scope_labels(INSTANCE, "ServiceInstance", {"service_instance": "instance"}),
        _scope_labels(ENDPOINT, "Endpoint", {"endpoint": "endpoint"}),
        _scope_labels(SERVICE_RELATION, "ServiceRelation", {}),
        _scope_labels(
            INSTANCE_RELATION,
            "ServiceInstanceRelation",
            {"service_instance": "source_instance", "dest_service_instance": "dest_instance"},
        ),
        _scope_labels(
            ENDPOINT_RELATION,
            "EndpointRelation",
            {
                "endpoint": "source_endpoint",
                "dest_endpoint": "dest_endpoint",
                "derivation": "derivation",
            },
        ),
    )
}

_OPS: Final = ((MatchOp.Equal, "="), (MatchOp.NotEqual, "!="), (MatchOp.Re, "=~"))


def matchers_of(selector: VectorSelector) -> list[Matcher]:
    """Return all conditions of a selector, that on its name too. Raises PromqlError."""
    if selector.matchers.or_matchers:
        problem = "`or` between matchers is not supported"
        raise PromqlError(problem, "put `or` between selectors, or use =~")
    found = [Matcher(one.name, _op(one.op), one.value) for one in selector.matchers.matchers]
    if selector.name:
        found.insert(0, Matcher(NAME, "=", selector.name))
    return found


def _op(op: MatchOp) -> str:
    return next((shown for one, shown in _OPS if one == op), "!~")


def allowed(matchers: Iterable[Matcher], values: Iterable[str], regexes: Regexes) -> list[str]:
    """Return the values of one label that fulfil all conditions, in their order."""
    left = list(dict.fromkeys(values))
    for one in matchers:
        if one.op in {"=", "!="}:
            left = [value for value in left if (value == one.value) == (one.op == "=")]
        else:
            found = regexes.matching(one.value, left)
            left = [value for value in left if (value in found) == (one.op == "=~")]
    return left


def select(
    matchers: Sequence[Matcher], catalogue: Catalogue, regexes: Regexes, notes: Notes
) -> list[Selection]:
    """Return what is chosen, by scope; tells where a metric's name is none. Raises PromqlError."""
    by_scope: dict[str, list[Metric]] = {}
    for metric in metrics_of(matchers, catalogue, regexes, notes):
        by_scope.setdefault(metric.scope, []).append(metric)
    others = [one for one in matchers if one.name not in {NAME, *SPECIAL, *_PASSED_OVER}]
    selections = (_selection(scope, own, others, regexes) for scope, own in by_scope.items())
    return [one for one in selections if one is not None]


def metrics_of(
    matchers: Sequence[Matcher], catalogue: Catalogue, regexes: Regexes, notes: Notes
) -> list[Metric]:
    """Return the stored metrics whose names match."""
    on_name = [one for one in matchers if one.name == NAME]
    stored = {
        metric.name: metric
        for metric in catalogue.stored
        if not metric.is_histogram and metric.scope in LABELS
    }
    chosen = allowed(on_name, stored, regexes)
    exact = [one.value for one in on_name if one.op == "="]
    if not chosen and exact and exact[0] not in catalogue.metrics:
        near = catalogue.nearest(exact[0]).strip()
        notes.warn("; ".join(filter(None, [f"there is no metric {exact[0]!r}", near])))
    return [stored[name] for name in chosen]


def _selection(
    scope: str, metrics: Sequence[Metric], matchers: Sequence[Matcher], regexes: Regexes
) -> Selection | None:
    own_labels = {metric.label for metric in metrics} - {None}
    of_metrics = [one for one in matchers if one.name == PERCENTILE or one.name in own_labels]
    where = of_entities(scope, [one for one in matchers if one not in of_metrics], regexes)
    if where is None:
        return None
    percentiles = [one for one in of_metrics if one.name == PERCENTILE]
    on_maps = tuple(one for one in of_metrics if one.name != PERCENTILE)
    parts = _percentiles(percentiles, regexes)
    kept = [one for one in metrics if one.label == PERCENTILE or "" in parts]
    kept = [one for one in kept if one.label != PERCENTILE or set(one.labels) & parts]
    if not kept:
        return None
    wanted = tuple(sorted(parts - {""}, key=int))
    return Selection(scope, tuple(kept), *where, wanted, on_maps)


def of_entities(
    scope: str, matchers: Iterable[Matcher], regexes: Regexes
) -> tuple[str, tuple[str, ...]] | None:
    """Return the condition on the names of a scope's entities, and its parameters.

    None where no entity of the scope can match.
    """
    labels = LABELS[scope]
    conditions: list[str] = []
    parameters: list[str] = []
    for one in matchers:
        if one.name in labels.columns:
            condition, parameter = condition_of(one, labels.columns[one.name])
            conditions.append(condition)
            parameters.append(parameter)
        elif not allowed([one], [labels.constants.get(one.name, "")], regexes):
            return None
    return " AND ".join(conditions), tuple(parameters)


def group_names(scope: str, is_kept: Callable[[str], bool]) -> list[str]:
    """Return the labels of names that a group has, in the order of `grouped_entities`."""
    return [name for name in LABELS[scope].columns if is_kept(name)]


def grouped_entities(selection: Selection, is_kept: Callable[[str], bool]) -> str:
    """Return SQL that gives each entity that is selected the names of its group.

    The first column of names has the labels as a list in JSON, the others are empty. The parameters
    are those of the selection.
    """
    labels = LABELS[selection.scope]
    kept = ", ".join(labels.columns[name] for name in group_names(selection.scope, is_kept))
    group = f"to_json([{kept}]::VARCHAR[])::VARCHAR"
    names = [
        f"{group if not at else literal('')} AS {quoted(key)}" for at, key in enumerate(labels.keys)
    ]
    where = f" WHERE {selection.condition}" if selection.condition else ""
    return f"SELECT entity, {', '.join(names)} FROM {entities_of(selection.scope)}{where}"


def condition_of(matcher: Matcher, column: str) -> tuple[str, str]:
    """Return the condition on a column as SQL, and its parameter."""
    if matcher.op in {"=", "!="}:
        return f"{column} {'=' if matcher.op == '=' else '<>'} ?", matcher.value
    negated = "NOT " if matcher.op == "!~" else ""
    return f"{negated}{FULL_MATCH.format(column)}", matcher.value


_PARTS: Final = ("", "50", "75", "90", "95", "99")


def _percentiles(matchers: Sequence[Matcher], regexes: Regexes) -> set[str]:
    """Return the parts that are wanted; the empty one stands for metrics without parts."""
    listed = [one for one in matchers if one.op == "=" and "," in one.value]
    found = set(allowed([one for one in matchers if one not in listed], _PARTS, regexes))
    for one in listed:
        # As in OAP, a comma in p='50,99' is an or.
        found &= {part.strip() for part in one.value.split(",")}
    return found
